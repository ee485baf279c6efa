"""Who votes in a round, on which batch, evaluated with whom.

    cohort(t)          the clients of round t, drawn from the run seed
    groups(t)          the cohort cut into the recipe's fixed groups of client ids
    batch(client, t)   the client's examples in round t

All three are functions of (run seed, recipe, t) and never of the number of rows: a group always runs together.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..seeds import derive, sample


class Pool:
    """parts: per client the indices of its examples, int64 [n_k].  cohort_size: voters a round.  group: ids a group."""

    def __init__(self, parts: Sequence[np.ndarray], cohort_size: int, group: int, batch: int, run_seed: int) -> None:
        self.parts, self.cohort_size, self.group = parts, cohort_size, group
        self._batch, self._run_seed = batch, run_seed

    @property
    def n_groups(self) -> int:
        """Groups of clients, over all rows."""
        return -(-len(self.parts) // self.group)

    def cohort(self, t: int) -> list[int]:
        """Sorted ids of the clients that vote in round t."""
        if self.cohort_size == len(self.parts):
            return list(range(len(self.parts)))
        return sorted(sample(derive(self._run_seed, "cohort", t), len(self.parts), self.cohort_size))

    def groups(self, t: int) -> dict[int, list[int]]:
        """Group number -> its members in round t's cohort; groups without a member are left out."""
        groups: dict[int, list[int]] = {}
        for client in self.cohort(t):
            groups.setdefault(client // self.group, []).append(client)
        return groups

    def batch(self, client: int, t: int) -> np.ndarray:
        """Indices of the client's batch in round t, int64 [min(batch, n_k)], drawn without replacement."""
        part = self.parts[client]
        if len(part) <= self._batch:
            return part
        return part[sample(derive(self._run_seed, "batch", client, t), len(part), self._batch)]
