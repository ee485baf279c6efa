"""Every rank on a GPU of its own, or all on the CPU; freed memory that stays, counted in page faults.

What a machine has is told to the check; no GPU is touched.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from hpcfed.errors import ConfigError
from hpcfed.transport import device
from hpcfed.transport.choose import spread
from hpcfed.transport.device import fair_threads, pick_device
from hpcfed.transport.launch import Launch, discover
from hpcfed.transport.solo import SoloTransport


class Told(SoloTransport):
    """One rank among others whose GPUs are known."""

    def __init__(self, others: list[str]) -> None:
        self._others = others

    def all_gather(self, data: bytes) -> list[bytes]:
        return [data, *(gpu.encode() for gpu in self._others)]


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A machine with two GPUs; the numbers of those that were made current."""
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: SimpleNamespace(uuid=f"gpu-{i}"))
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    return chosen


def launch(local_rank: int, ranks: int) -> Launch:
    return Launch("torchrun", local_rank, ranks, local_rank, ranks)


def test_ranks_take_the_gpus_of_their_node_in_turn(gpus: list[int]) -> None:
    assert pick_device(Told(["other-node gpu-1"]), launch(1, 2), "auto") == "cuda" and gpus == [1]
    assert pick_device(Told([]), launch(2, 3), "cuda") == "cuda" and gpus == [1, 0]


def test_all_ranks_compute_on_the_same_kind_of_device(gpus: list[int]) -> None:
    import platform

    for others in (["node gpu-0", ""], [f"{platform.node()} gpu-0"]):  # one has none; two share one
        assert pick_device(Told(others), launch(0, 3), "auto") == "cpu"
        with pytest.raises(ConfigError, match=r'mesh\.device="cuda": (no GPU on rank 2|2 ranks share 1 GPUs)'):
            pick_device(Told(others), launch(0, 3), "cuda")
    assert pick_device(Told(["node gpu-1"]), launch(0, 2), "cpu") == "cpu"
    assert gpus == []


def test_ranks_of_a_node_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    import json
    import platform

    def others(*ranks: tuple[str, list[int]]) -> Told:
        return Told([json.dumps(rank) for rank in ranks])

    here = platform.node()
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert fair_threads(others()) == 8
    assert fair_threads(others((here, list(range(8))))) == 4  # both may run anywhere
    assert fair_threads(others(("far", [0, 1, 2]))) == 3  # the smallest node's share, for all
    assert fair_threads(others(*[(here, [0])] * 15)) == 1
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1}, raising=False)
    assert fair_threads(others((here, [2, 3]), (here, [4, 5]))) == 2  # bound by the launcher, each to its own


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_without_a_gpu() -> None:
    alone = SoloTransport()
    assert spread(alone, discover({}), 1).row.device == "cpu"
    with pytest.raises(ConfigError, match="no GPU on rank 0"):
        spread(alone, discover({}), 1, "cuda")


# --- the heap, in processes of their own ----------------------------------------------------------------------------

FAULTS = """
import resource
import sys
from hpcfed.transport.device import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()
for _ in range(5):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytearray(b"x") * 2**26  # 16,384 pages
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(what: str, **settings: str) -> int:
    """Page faults of the fifth of five equal arrays, each freed before the next."""
    own = {name: value for name, value in os.environ.items() if name not in device.HEAP_SETTINGS}
    done = subprocess.run([sys.executable, "-c", FAULTS, what], env=own | settings, capture_output=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_the_next_block_of_a_size_finds_its_pages():
    assert faults("keep") < 100 < 1000 < faults("leave")


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_a_user_s_own_setting_wins():
    assert faults("keep", MALLOC_MMAP_THRESHOLD_="1000000") > 1000
