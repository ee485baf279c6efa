"""Who votes in a round, on which batch, evaluated with whom.

    cohort(t)          the clients of round t, drawn from the run seed
    groups(t)          the cohort cut into the recipe's fixed groups of client ids
    batch(client, t)   the client's examples in round t
    steps(client, t)   those of its local steps in round t

All are functions of (run seed, recipe, t) and never of the number of rows: a group always runs together.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from ..seeds import derive, sample
from .partition import Parts
from .report import PartitionReport, partition_report


class Digested(Protocol):
    """Training examples."""

    def digest(self) -> str: ...


class Pool:
    """parts: per client the indices of its examples, int64 [n_k].  cohort_size: voters a round.  group: ids a group."""

    def __init__(
        self, parts: Parts | Sequence[np.ndarray], cohort_size: int, group: int, batch: int, run_seed: int
    ) -> None:
        self.parts, self.cohort_size, self.group = parts, cohort_size, group
        self.clients = len(parts)
        self._batch, self._run_seed = batch, run_seed
        self._last: tuple[int, list[int]] = (-1, [])

    @property
    def n_groups(self) -> int:
        """Groups of clients, over all rows."""
        return -(-self.clients // self.group)

    def cohort(self, t: int) -> list[int]:
        """Sorted ids of the clients that vote in round t."""
        if self._last[0] != t:  # asked for several times a round
            ids = range(self.clients)
            if self.cohort_size < self.clients:
                ids = sorted(sample(derive(self._run_seed, "cohort", t), self.clients, self.cohort_size))  # type: ignore
            self._last = t, list(ids)
        return self._last[1]

    def groups(self, t: int) -> Mapping[int, Sequence[int]]:
        """Group number -> its members in round t's cohort; groups without a member are left out."""
        if self.cohort_size == self.clients:  # ranges: 36 bytes a client less than lists
            ends = [*range(0, self.clients, self.group), self.clients]
            return {group: range(*span) for group, span in enumerate(itertools.pairwise(ends))}
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

    def sizes(self, t: int) -> np.ndarray:
        """Examples that the clients of round t hold, int64 [cohort_size]."""
        return np.array([len(self.parts[client]) for client in self.cohort(t)], np.int64)

    def steps(self, client: int, t: int, most: int, epoch: bool) -> Iterator[np.ndarray]:
        """Indices of the batch of every local step: `most` independent ones, or one pass over the client's data."""
        part = self.parts[client]
        if epoch:
            order = part[sample(derive(self._run_seed, "epoch", client, t), len(part), len(part))]
            yield from (order[i : i + self._batch] for i in range(0, len(part), self._batch))
        else:
            for j in range(most):
                seed = derive(self._run_seed, "batch", client, t, j)
                yield part[sample(seed, len(part), min(self._batch, len(part)))]

    def most_steps(self) -> int:
        """Batches in one pass over the data of the client that has the most."""
        return max(-(-len(part) // self._batch) for part in self.parts)

    def digest(self, train: Digested) -> str:
        """Of the training examples, and of who holds which: the same on rows that share them."""
        h = hashlib.blake2b(digest_size=16)
        for part in self.parts:
            h.update(np.int64(len(part)).tobytes() + part.tobytes())
        return f"{train.digest()}-{h.hexdigest()}"

    def report(self, labels: np.ndarray, names: Sequence[str]) -> PartitionReport:
        """Which client holds how much of what.  labels: of the training examples.  names: of the classes."""
        return partition_report(self.parts, labels, names)


class CentralPool(Pool):
    """All data in one place: the "clients" are slices of one batch, so that rows can share its work (MeZO)."""

    def __init__(self, part: np.ndarray, slices: int, group: int, batch: int, run_seed: int) -> None:
        slices = min(slices, batch, len(part))
        super().__init__([part], slices, group, batch, run_seed)
        self.clients = slices

    def batch(self, client: int, t: int) -> np.ndarray:
        """The client-th slice of round t's batch."""
        return super().batch(0, t)[client :: self.clients]

    def sizes(self, t: int) -> np.ndarray:
        """Examples in every slice, int64 [slices]."""
        return np.array([len(self.batch(client, t)) for client in range(self.clients)], np.int64)
