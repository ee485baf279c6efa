"""Clients whose data lie in files of their own (clients.manifest): each row holds those of the clients it hosts.

What all rows must know of the others' clients, their sizes and a digest of what they hold, is counted once, by the row
that read it, and gathered at the start.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from ..config import Recipe
from ..transport.base import Transport
from .partition import Indices
from .pool import Digested, Pool
from .report import PartitionReport, partition_report


class HostedPool(Pool):
    """A pool of which this row has the examples of the clients `hosted` only: `parts` of all others are empty.

    sizes: examples of each of them, which lie one client after the other.  counts: int64 [clients, C], examples of
    every class with every client, or None where nobody may know.  weights: [clients], or None: the sums of counts,
    or 1 where nobody may know them (votes have no weights).
    """

    def __init__(
        self,
        recipe: Recipe,
        hosted: range,
        sizes: Indices,
        counts: Indices | None,
        weights: Sequence[int] | None,
        digests: bytes,
    ) -> None:
        c = recipe.clients
        nothing = np.zeros(0, np.int64)
        dealt = np.split(np.arange(sizes.sum()), np.cumsum(sizes)[:-1])
        parts = [nothing] * hosted.start + dealt + [nothing] * (c.count - hosted.stop)
        super().__init__(parts, c.cohort, c.group, c.batch, recipe.seed)
        self._counts = counts
        given = None if weights is None else np.array(weights, np.int64)
        counted = np.ones(c.count, np.int64) if counts is None else counts.sum(1)
        self._weights = counted if given is None else given
        weighed = hashlib.blake2b(b"" if given is None else given.tobytes(), digest_size=16).hexdigest()
        self._digest = f"{hashlib.blake2b(digests, digest_size=16).hexdigest()}-{weighed}"

    def sizes(self, t: int) -> np.ndarray:
        """Weights of the clients of round t, int64 [cohort_size]."""
        return self._weights[self.cohort(t)]

    def most_steps(self) -> int:
        """Batches in one pass over the data of the client that has the most."""
        assert self._counts is not None  # no private method walks
        return int(-(-self._counts.sum(1).max() // self._batch))

    def digest(self, train: Digested) -> str:
        """Of what all clients hold, whoever hosts them, and of their weights."""
        return self._digest

    def report(self, labels: np.ndarray, names: Sequence[str]) -> PartitionReport:
        """Which client holds how much of what, of all clients, whoever hosts them.  names: of the C classes."""
        assert self._counts is not None
        everyone = np.repeat(np.tile(np.arange(len(names)), self.clients), self._counts.ravel())
        parts = np.split(np.arange(len(everyone)), np.cumsum(self._counts.sum(1))[:-1])
        return partition_report(parts, everyone, names)


def hosted_pool(
    transport: Transport,
    recipe: Recipe,
    hosted: range,
    holdings: Sequence[tuple[Indices, str]],
    weights: Sequence[int] | None,
    may_tell: bool,
) -> HostedPool:
    """Collective: the pool of clients of which this row hosts `hosted`, and every row the next ones.

    holdings: of each of them, its examples of every class, int64 [C], and 128-bit hex digest.  may_tell: the other rows
    learn the former.  Traffic: 16 + 8 C bytes a client, else 16.
    """
    counts = np.stack([count for count, _ in holdings])
    told = b"".join((count.tobytes() if may_tell else b"") + bytes.fromhex(digest) for count, digest in holdings)
    width = 16 + (counts[0].nbytes if may_tell else 0)
    everyone = np.frombuffer(b"".join(transport.all_gather(told)), np.uint8).reshape(-1, width)
    assert len(everyone) == recipe.clients.count
    shared = np.ascontiguousarray(everyone[:, :-16]).view(np.int64) if may_tell else None
    digests = np.ascontiguousarray(everyone[:, -16:]).tobytes()
    return HostedPool(recipe, hosted, counts.sum(1), shared, weights, digests)
