"""What of torch.distributed needs no second rank: addresses, messages, who has a store of its agent's.

tests/ranks/test_transport.py has the collectives on 2 and 3 ranks, and what happens when one of them dies.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys

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


STRANGERS = """
import json, socket, sys, threading
from datetime import timedelta
from hpcfed.transport import torchdist
from hpcfed.transport.launch import Launch, MeetingPoint

torchdist.START = timedelta(seconds=2)
here, held = "127.0.0.1", []

def port(answer):
    server = socket.create_server((here, 0))
    held.append(server)
    def serve():
        while True:
            caller = server.accept()[0]
            held.append(caller)
            threading.Thread(target=answer, args=(caller,), daemon=True).start()
    if answer:
        threading.Thread(target=serve, daemon=True).start()
    return server.getsockname()[1]

def echo(caller):
    while heard := caller.recv(100):
        caller.sendall(heard)

free = socket.create_server((here, 0))
nobody = free.getsockname()[1]
free.close()
cases = {
    "silent": (1, here, port(lambda caller: None)),
    "closes": (1, here, port(lambda caller: caller.close())),
    "web": (1, here, port(lambda caller: caller.sendall(b"HTTP/1.1 400 Bad Request\\r\\n\\r\\n" * 9))),
    "byte": (1, here, port(lambda caller: caller.sendall(b"x"))),
    "echo": (1, here, port(echo)),
    "deaf": (1, here, port(None)),
    "nobody": (1, here, nobody),
    "name": (1, "nowhere.invalid", nobody),
    "taken": (0, here, port(None)),
}
said = {}

def meet(name, rank, host, at):
    launch, point = Launch("torchrun", rank, 2, rank, 2), MeetingPoint(host, at, False)
    try:
        torchdist._store(launch, point)
    except Exception as error:
        said[name] = torchdist._why_apart(error, point, launch, False).replace(f"{host}:{at}", "HOST:PORT")

threads = [threading.Thread(target=meet, args=(name, *case)) for name, case in cases.items()]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps(said))
"""


def test_strangers_at_the_meeting_point_are_told_apart_in_time() -> None:
    done = subprocess.run([sys.executable, "-c", STRANGERS], capture_output=True, text=True, timeout=100)
    said = json.loads(done.stdout.splitlines()[-1])
    waited = "the 2 ranks did not find each other at HOST:PORT (MASTER_ADDR:MASTER_PORT) within 2 s: "
    parts = {
        **dict.fromkeys(
            ("silent", "closes", "web", "byte", "echo", "deaf"), waited + "what listens there does not answer"
        ),
        "nobody": waited + "nobody listens there",
        "name": waited + "nowhere.invalid has no address on ",
        "taken": "rank 0 cannot listen at HOST:PORT (MASTER_ADDR:MASTER_PORT): another job or program listens there",
    }
    assert said.keys() == parts.keys()
    assert not {name: said[name] for name, part in parts.items() if not said[name].startswith(part)}
    assert not any("\n" in text for text in said.values())
    assert done.returncode == 1  # and not a thread torn down in the middle, which aborts


def test_ranks_of_another_job_on_the_same_port_are_not_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = Launch("torchrun", 0, 2)
    jobs = set()
    for launch, extra in (
        (ours, {"TORCHELASTIC_RUN_ID": "a"}),
        (ours, {"TORCHELASTIC_RUN_ID": "b"}),
        (ours, {}),
        (Launch("torchrun", 0, 3), {}),
        (Launch("slurm", 0, 2), {"SLURM_JOB_ID": "1", "SLURM_STEP_ID": "0"}),
        (Launch("slurm", 0, 2), {"SLURM_JOB_ID": "1", "SLURM_STEP_ID": "1"}),
        (Launch("slurm", 0, 2), {"SLURM_JOB_ID": "2", "SLURM_STEP_ID": "1"}),
    ):
        monkeypatch.setattr(torchdist.os, "environ", extra)
        jobs.add(torchdist._job(launch))
        assert torchdist._job(Launch(launch.launcher, 1, launch.size)) == torchdist._job(launch)
    assert len(jobs) == 7
