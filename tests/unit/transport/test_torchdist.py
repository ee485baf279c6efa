"""What of torch.distributed needs no second rank: addresses, messages, who has a store of its agent's.

tests/ranks/test_transport.py has the collectives on 2 and 3 ranks, and what happens when one of them dies.
"""

from __future__ import annotations

import socket

import pytest
import torch
import torch.distributed as dist

from hpcfed.transport import torchdist
from hpcfed.transport.launch import Launch, MeetingPoint
from hpcfed.transport.torchdist import agent_store, gloo_says, gpu_for_each, own_address


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("[../third_party/gloo/pair.cc:598] Connection closed by peer [::1]:38", "Connection closed by peer [::1]:38"),
        ("Timed out. This is typically caused by a slow rank\nmore", "Timed out"),
        ("[a.cc:1] Broken. This is typically x", "Broken"),
        ("plain", "plain"),
        ("", "RuntimeError"),
    ],
)
def test_gloos_message_without_its_source_and_its_guesses(message: str, said: str) -> None:
    assert gloo_says(RuntimeError(message)) == said


def test_ranks_of_one_host_meet_on_the_loopback_interface() -> None:
    assert own_address(Launch("torchrun", 0, 2, 0, 2), MeetingPoint("nowhere.invalid", 1, True)) == "127.0.0.1"


@pytest.mark.parametrize(
    ("route", "address"),
    [
        ("10.0.0.7", "10.0.0.7"),
        ("127.0.0.1", ""),  # no use to other hosts
        (None, ""),  # then gloo finds one itself
    ],
)
def test_ranks_of_several_hosts_give_the_address_of_the_route(
    monkeypatch: pytest.MonkeyPatch, route: str | None, address: str
) -> None:
    class Probe(socket.socket):
        """A datagram socket of a host with that address on the way there."""

        def connect(self, there: object) -> None:
            assert there == ("head", 29500)
            if route is None:
                raise OSError

        def getsockname(self) -> tuple[str | None, int]:
            return (route, 1)

    monkeypatch.setattr(torchdist.socket, "socket", Probe)
    assert own_address(Launch("torchrun", 0, 4, 0, 2), MeetingPoint("head", 29500, True)) == address


@pytest.mark.parametrize("launcher", ["alone", "openmpi", "mpich", "slurm"])
def test_only_torchrun_has_an_agent(launcher: str) -> None:
    assert agent_store(Launch(launcher, 0, 2)) is None


@pytest.mark.parametrize(
    ("gpus", "ranks", "nccl", "each"),
    [(2, 2, True, True), (2, 1, True, True), (2, 3, True, False), (0, 1, True, False), (2, 2, False, False)],
)
def test_votes_go_through_nccl_where_every_rank_has_a_gpu(
    monkeypatch: pytest.MonkeyPatch, gpus: int, ranks: int, nccl: bool, each: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(dist, "is_nccl_available", lambda: nccl)
    assert gpu_for_each(Launch("torchrun", 0, ranks, 0, ranks)) == each
