"""What clients and rows say to each other, and what moves the weights.

Steps     what the clients of a round do: along which directions, on which batches
Ballots   what the clients of one row vote in one round: int8 [clients, directions] in {-1, 0, +1}
Tally     what all of them voted, summed: sums, cast int32 [directions]
Slopes    what the clients of one row found in one round: float64 [clients, steps], NaN where a loss was not finite
Reports   what all of them sent, in client order: float32 [cohort, steps]
Update    what moves the weights: for each i in turn, w <- w - lr / divisor value_i z(seed_i)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np


@dataclass(frozen=True, eq=False)
class Steps:
    """What the clients of a round do.

    seeds: uint64 [1, s], the same s directions for all, or [K, s], row k for the k-th client of the cohort.
    walk: float64 [s], step size of each local step, taken before the next slope is found; None: all slopes at the
    round's weights.  batches: all slopes on the round's one batch, a new batch a step, or one pass over the data.
    mu: perturbation scale; None: algorithm.mu.
    """

    seeds: np.ndarray
    walk: np.ndarray | None = None
    batches: Literal["round", "step", "epoch"] = "round"
    mu: float | None = None

    @property
    def shared(self) -> bool:
        """All clients find slopes along the same directions, at the round's weights."""
        return len(self.seeds) == 1 and self.walk is None


@dataclass(frozen=True, eq=False)
class Ballots:
    """votes: int8 [m, q] in {-1, 0, +1}, 0 abstains (slope not finite); m clients of this row, q directions."""

    clients: Sequence[int]
    votes: np.ndarray


@dataclass(frozen=True, eq=False)
class Tally:
    """Sums over all clients of the round.

    sums, cast: int32 [q], sum of votes and number of votes that were not abstentions.  voters: size of the cohort.
    stop: ranks that were asked (by a signal) to end the run after this round.
    payload_bytes: handed to collectives by this row.  collectives: how many.
    """

    sums: np.ndarray
    cast: np.ndarray
    voters: int
    stop: int = 0
    payload_bytes: int = 0
    collectives: int = 0


@dataclass(frozen=True, eq=False)
class Slopes:
    """clients: ids of the m clients hosted here, ascending.  values: float64 [m, s], along s directions or local steps.

    losses: float64 [m], mean loss of each client where it was evaluated.
    """

    clients: Sequence[int]
    values: np.ndarray
    losses: np.ndarray


@dataclass(frozen=True, eq=False)
class Reports:
    """values: float32 [K, s], slopes of all K clients of the round in the order of their ids; NaN abstains.

    sizes: int64 [K], examples that stand behind each client's report; known to all rows, never sent.
    stop, payload_bytes, collectives: as in Tally.
    """

    values: np.ndarray
    sizes: np.ndarray
    stop: int = 0
    payload_bytes: int = 0
    collectives: int = 0


@dataclass(frozen=True, eq=False)
class Update:
    """seeds: uint64 [n] directions; values: float32 [n], how far along each; lr: step size of the round.

    divisor: what the values are averaged over.  whole: from the base model on, instead of from where the weights are.
    """

    seeds: np.ndarray
    values: np.ndarray
    lr: float
    divisor: int = 1
    whole: bool = False

    @property
    def coefficients(self) -> np.ndarray:
        """float32 [n]: lr / divisor times the values."""
        return self.values * np.float32(self.lr / self.divisor)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What is known of a round afterwards.

    loss: mean over the clients hosted here whose loss is finite, NaN if there are none.
    abstained: clients without a finite report.
    sums, cast: int32 [s], tally of the signs along directions that all clients share; None where they share none, or
    where nobody may know.  stop, payload_bytes, collectives: as in Tally.
    silent: ids of clients hosted here that abstained.
    zeros: slopes found here that are exactly 0, of so many `slopes`.
    skipped: local steps of all clients that were not taken, since their loss was not finite.
    """

    loss: float
    stop: int = 0
    payload_bytes: int = 0
    collectives: int = 0
    abstained: int = 0
    sums: np.ndarray | None = None
    cast: np.ndarray | None = None
    silent: Sequence[int] = ()
    zeros: int = 0
    slopes: int = 0
    skipped: int = 0
