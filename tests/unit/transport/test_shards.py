"""Rows of several ranks, as far as one rank can tell; tests/ranks/test_shards.py has them in earnest."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.distributed as dist

from hpcfed.errors import ConfigError
from hpcfed.messages import Ballots
from hpcfed.transport.launch import Launch
from hpcfed.transport.mesh import MeshShape
from hpcfed.transport.row import Row
from hpcfed.transport.shards import RowWorld, ShardedTransport, rows_of_shards
from hpcfed.transport.solo import SoloTransport


def test_shards_must_divide_the_ranks_and_one_shard_changes_nothing() -> None:
    transport = SoloTransport()
    with pytest.raises(ConfigError, match=r"mesh\.shards=3 does not divide the 1 rank") as caught:
        rows_of_shards(transport, Launch(), 3)
    assert transport.is_everywhere(caught.value)
    assert rows_of_shards(transport, Launch(), 1) is transport and transport.noun == "row"


def shard(number: int) -> ShardedTransport:
    """A client axis of one row, on which this rank is the row's shard `number`."""
    row = Row()
    row.shard = number
    return ShardedTransport(SoloTransport(), MeshShape(1), row)


def test_only_shard_0_speaks_for_its_row() -> None:
    """What another shard drew for privacy would be a further look at the same vote."""
    ballots = Ballots([0, 1, 2], np.array([[1, -1], [1, 1], [1, 0]], np.int8))
    votes = [shard(k).tally(ballots, 3, [3]) for k in (0, 1)]
    assert votes[0].sums.tolist() == [3, 0] and votes[0].cast.tolist() == [3, 2]
    assert votes[1].sums.tolist() == votes[1].cast.tolist() == [0, 0]
    for k, heard in ((0, [7, 8]), (1, [0, 0])):
        vector = np.array([7, 8])
        shard(k).sum_in_place(vector)
        assert vector.tolist() == heard
        assert shard(k).all_gather(b"x") == [b"x" if k == 0 else b""]
        assert shard(k).everyone(b"x") == [b"x"]  # of all ranks
        seen: list[list[int]] = []
        shard(k).private_tally(
            ballots, 3, [3], lambda sums, seen=seen: seen.append(sums.tolist()) or np.ones(2, np.int8)
        )
        assert seen == [[3, 0] if k == 0 else [0, 0]]
    assert shard(1).broadcast(b"x") == b"x" and shard(1).noun == "rank"


def test_a_world_of_one_shard_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    world = RowWorld(2, 0, 1, dist.HashStore(), torch.device("cpu"))
    try:
        assert (world.index, world.shard, world.shards, world.device) == (2, 0, 1, "cpu")
        assert dist.get_world_size() == 1
        assert [world.gather(data) for data in (b"", b"abc")] == [[b""], [b"abc"]]
        assert world.any(True) and not world.any(False)
        for vector in (np.array([[1, 2**63]], np.uint64), np.array([np.nan, -0.0], np.float32), np.zeros(0, np.int8)):
            before = vector.tobytes()
            world.share(vector)
            assert vector.tobytes() == before
    finally:
        world.close()
    assert not dist.is_initialized()
    world.close()  # a second time does nothing
