"""Where the time of a round goes: what one row spends (Clock), and what all rows' times say together (shares).

    forward      batches and forward passes (dense methods: backward too), until a row has something to send; where
                 attackers collude, also what they say to each other
    directions   drawing z and making w + mu z, w - mu z of it, inside the forward passes
    collective   from handing over what the row's clients send until the answer of all rows is there
    update       decide, journal, move the weights; also the steps of clients that walk

Formula  vote_t = min_r collective_rt,  waiting_rt = collective_rt - vote_t
Legend   r: row, t: round.  The row that comes last into a collective waits for nobody, so its time there is what the
         collective itself costs; what another row spends beyond that, it spends waiting for the slowest.
Promise  every moment of a round belongs to one part, so the parts are >= 0 and add up to the round, on each row and in
         the mean over rows. Only durations are compared, so the rows' clocks need not agree, and there is no barrier.

A part costs two readings of time.perf_counter. On a GPU nothing is synchronised for it, so work is charged where the
host waits for it: `directions` and `update` are the launching of kernels, and `forward`, which ends in reading the
losses, also has what the GPU still had to do of both.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

FORWARD, DIRECTIONS, COLLECTIVE, UPDATE = range(4)
PARTS = ("forward", "directions", "collective", "update")
SHARES = ("forward", "directions", "vote", "update", "waiting")

Seconds = NDArray[np.float64]


class Clock:
    """One row's time, charged to one part at a time; between rounds it may be switched, too, and forgets it.

    last: seconds of each of PARTS in the last round.
    """

    def __init__(self) -> None:
        self.last = [0.0] * len(PARTS)
        self._part, self._since = FORWARD, perf_counter()
        self._rounds = array("d")  # of every round since the last take, len(PARTS) numbers

    def to(self, part: int) -> int:
        """From now on time goes to `part`; returns the part it went to before, for going back."""
        before, now = self._part, perf_counter()
        self.last[before] += now - self._since
        self._part, self._since = part, now
        return before

    @contextmanager
    def during(self, part: int) -> Iterator[None]:
        """Inside, time goes to `part`."""
        before = self.to(part)
        try:
            yield
        finally:
            self.to(before)

    @contextmanager
    def round(self) -> Iterator[None]:
        """Inside is one round, which begins with `forward`. A round that fails is not counted."""
        self.to(FORWARD)
        self.last = [0.0] * len(PARTS)
        yield
        self.to(FORWARD)
        self._rounds.extend(self.last)

    @property
    def seconds(self) -> float:
        """Of the last round."""
        return sum(self.last)

    def take(self) -> Seconds:
        """float64 [n, len(PARTS)]: the n rounds since the last take, which are forgotten."""
        taken, self._rounds = self._rounds, array("d")
        return np.frombuffer(taken, np.float64).reshape(-1, len(PARTS))


def shares(spent: Seconds) -> Seconds:
    """float64 [rows, len(SHARES)], seconds in all n rounds.  spent: [rows, n, len(PARTS)], every row's Clock.take()."""
    forward, directions, collective, update = spent.transpose(2, 0, 1)
    vote = np.broadcast_to(collective.min(0), collective.shape)
    parts = (forward, directions, vote, update, collective - vote)
    return np.stack([part.sum(1) for part in parts], axis=1)


def mean_shares(records: Iterable[Mapping[str, Any]]) -> dict[str, float] | None:
    """Seconds of each of SHARES in a round, mean over rounds and rows, from the lines of a metrics.jsonl that tell.

    None if no line does: the run is older than they are, or was killed before the first of them.
    """
    total, rounds = np.zeros(len(SHARES)), 0
    for record in records:
        if isinstance(record.get("timed"), int):
            rounds += record["timed"]
            total += record["timed"] * np.array([float(record["time"][part]) for part in SHARES])
    return dict(zip(SHARES, (total / rounds).tolist(), strict=True)) if rounds else None
