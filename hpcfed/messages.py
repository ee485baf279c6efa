"""What clients and rows say to each other, and what moves the weights.

Ballots   what the clients of one row send in one round: votes int8 [clients, directions] in {-1, 0, +1}
Tally     what all of them sent, summed: sums, cast int32 [directions]
Update    what moves the weights: w <- w - sum_i coefficient_i z(seed_i), one step after the other
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


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
class Update:
    """seeds: uint64 [n] directions, coefficients: float32 [n] (lr times what the tally decided), in order."""

    seeds: np.ndarray
    coefficients: np.ndarray
