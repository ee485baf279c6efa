"""Every rank on a GPU of its own, or all on the CPU. What a machine has is told to the check; no GPU is touched."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from hpcfed.errors import ConfigError
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
