"""What of torch.distributed needs no second rank: addresses, messages, who has a store of its agent's.

tests/ranks/test_transport.py has the collectives on 2 and 3 ranks, and what happens when one of them dies.
"""

from __future__ import annotations

import pytest
import torch

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
    several = Launch("torchrun", 0, 4, 0, 2)
    assert own_address(several, MeetingPoint("nowhere.invalid", 1, True)) == ""  # then gloo finds one itself
    assert own_address(several, MeetingPoint("127.0.0.1", 1, True)) == ""  # no use to other hosts


@pytest.mark.parametrize("launcher", ["alone", "openmpi", "mpich", "slurm"])
def test_only_torchrun_has_an_agent(launcher: str) -> None:
    assert agent_store(Launch(launcher, 0, 2)) is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_without_a_gpu_votes_go_through_gloo() -> None:
    assert not gpu_for_each(Launch())
