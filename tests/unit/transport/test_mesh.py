"""Rows, shards and hosted groups: every rank has one place, every group one row, whatever the numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcfed.errors import ConfigError
from hpcfed.transport.mesh import MeshShape


@given(rows=st.integers(1, 40), shards=st.integers(1, 8))
def test_every_rank_is_one_shard_of_one_row(rows: int, shards: int) -> None:
    mesh = MeshShape.fit(rows * shards, shards)
    assert (mesh.rows, mesh.shards, mesh.ranks) == (rows, shards, rows * shards)
    assert [rank for row in range(rows) for rank in mesh.ranks_of_row(row)] == list(range(mesh.ranks))
    for rank in range(mesh.ranks):
        assert mesh.ranks_of_row(mesh.row_of(rank))[mesh.shard_of(rank)] == rank


@given(rows=st.integers(1, 40), groups=st.integers(0, 200))
def test_every_group_is_hosted_once_and_rows_share_fairly(rows: int, groups: int) -> None:
    mesh = MeshShape(rows)
    hosted = [mesh.groups_of_row(row, groups) for row in range(rows)]
    assert [group for share in hosted for group in share] == list(range(groups))
    assert all(mesh.row_of_group(group, groups) == row for row, share in enumerate(hosted) for group in share)
    sizes = [len(share) for share in hosted]
    assert max(sizes) - min(sizes) <= 1
    if groups >= rows:
        mesh.check_groups(groups)
        assert min(sizes) >= 1


def test_shards_that_do_not_divide_the_ranks_list_what_does() -> None:
    with pytest.raises(ConfigError, match=r"mesh.shards=3 does not divide the 8 ranks .* use one of \[1, 2, 4, 8\]"):
        MeshShape.fit(8, 3)
    with pytest.raises(ConfigError, match=r"mesh.shards=0 .* the 1 rank launched"):
        MeshShape.fit(1, 0)


def test_fewer_groups_than_rows_says_what_to_change() -> None:
    with pytest.raises(ConfigError, match=r"4 rows .* only 3 groups .* clients.group .* at most 3 rank"):
        MeshShape(4).check_groups(3)
    with pytest.raises(ConfigError, match=r"only 1 group .* at most 2 rank"):
        MeshShape(2, 2).check_groups(1)
