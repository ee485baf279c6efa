"""Clients whose data lie in files of their own (clients.manifest): each row holds those of the clients it hosts.

What all rows must know of the others' clients, their sizes and a digest of what they hold, is counted once, by the row
that read it, and gathered at the start.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from ..config import ClientsConfig
from ..transport.base import Transport
from .partition import Indices, PartitionReport, partition_report
from .pool import Digested, Pool


class HostedPool(Pool):
    """A pool of which this row has the examples of clients `mine` only: `parts` of all others are empty.

    sizes: examples of each of mine, which lie one client after the other.  counts: int64 [clients, C], examples of
    every class with every client, or None where nobody may know.  weights: [clients], or None: the sums of counts,
    or 1 where nobody may know them (votes have no weights).
    """

    def __init__(
        self,
        c: ClientsConfig,
        run_seed: int,
        mine: range,
        sizes: Indices,
        counts: Indices | None,
        weights: Sequence[int] | None,
        digests: bytes,
    ) -> None:
        nothing = np.zeros(0, np.int64)
        held = np.split(np.arange(sizes.sum()), np.cumsum(sizes)[:-1])
        parts = [nothing] * mine.start + held + [nothing] * (c.count - mine.stop)
        super().__init__(parts, c.cohort, c.group, c.batch, run_seed)
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
    c: ClientsConfig,
    run_seed: int,
    mine: range,
    held: Sequence[tuple[Indices, str]],
    weights: Sequence[int] | None,
    private: bool,
) -> HostedPool:
    """Collective: the pool of clients of which this row hosts `mine`, and every row the next ones.

    held: of each of mine, its examples of every class, int64 [C], and 128-bit hex digest.  private: the other rows do
    not learn the former.  Traffic: 16 + 8 C bytes a client, 16 if private.
    """
    counts = np.stack([count for count, _ in held])
    told = b"".join((b"" if private else count.tobytes()) + bytes.fromhex(digest) for count, digest in held)
    width = 16 if private else 16 + counts[0].nbytes
    everyone = np.frombuffer(b"".join(transport.all_gather(told)), np.uint8).reshape(-1, width)
    assert len(everyone) == c.count
    shared = None if private else np.ascontiguousarray(everyone[:, :-16]).view(np.int64)
    digests = np.ascontiguousarray(everyone[:, -16:]).tobytes()
    return HostedPool(c, run_seed, mine, counts.sum(1), shared, weights, digests)
