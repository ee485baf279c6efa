"""Which rank is which row and shard, and which row hosts which clients. Arithmetic only: nothing here communicates.

    rank = row * shards + shard          shards of one row are neighbours, so that a row stays inside a node
    row of group g = g * rows // groups  contiguous; every row hosts a group if there are as many groups as rows

Promise: the layout moves clients between rows, never between groups; what a group computes does not depend on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import ConfigError


@dataclass(frozen=True)
class MeshShape:
    """rows: full copies of the model.  shards: ranks that one copy is spread over."""

    rows: int
    shards: int = 1

    @staticmethod
    def fit(ranks: int, shards: int) -> MeshShape:
        """The mesh of `ranks` launched ranks; ConfigError with the right numbers if `shards` does not divide them."""
        assert ranks >= 1
        if shards < 1 or ranks % shards:
            right = [n for n in range(1, ranks + 1) if ranks % n == 0]
            raise ConfigError(
                f"mesh.shards={shards} does not divide the {ranks} rank{'s' * (ranks > 1)} launched; "
                f"use one of {right}" + (f", or launch a multiple of {shards} ranks" if shards > 1 else "")
            )
        return MeshShape(ranks // shards, shards)

    @property
    def ranks(self) -> int:
        return self.rows * self.shards

    def row_of(self, rank: int) -> int:
        return rank // self.shards

    def shard_of(self, rank: int) -> int:
        return rank % self.shards

    def ranks_of_row(self, row: int) -> range:
        return range(row * self.shards, (row + 1) * self.shards)

    def check_groups(self, groups: int) -> None:
        """ConfigError if some row would host no group of clients."""
        if groups < self.rows:
            cure = "lower clients.group so that there are more groups, or " if groups else ""
            raise ConfigError(
                f"{self.rows} rows were launched, but the clients form only {groups} group{'s' * (groups != 1)} "
                f"and a group is never split; {cure}launch at most {max(groups, 1) * self.shards} rank(s)"
            )

    def row_of_group(self, group: int, groups: int) -> int:
        """The row that hosts group number `group` of `groups`."""
        assert 0 <= group < groups
        return group * self.rows // groups

    def groups_of_row(self, row: int, groups: int) -> range:
        """The groups that `row` hosts: the inverse of row_of_group."""
        assert 0 <= row < self.rows
        return range(-(-row * groups // self.rows), -(-(row + 1) * groups // self.rows))

    def hosted(self, groups: Mapping[int, Sequence[int]], n_groups: int) -> list[int]:
        """How many of a round's clients each row hosts.  groups: group number -> its members, of `n_groups` in all."""
        clients = [0] * self.rows
        for group, members in groups.items():
            clients[self.row_of_group(group, n_groups)] += len(members)
        return clients
