"""How far clients agree on the sign of a slope, and what that says about p_t: without another bit from anybody.

    agreement   mean over directions of (1 + |S| / n) / 2          share of votes that are the majority's
    pairs       mean over directions of (S^2 - n) / (n (n - 1))    estimates (1 - 2 p_t)^2
    p_t         (1 - sqrt(mean of pairs over rounds)) / 2          FeedSign, assumption 5: sign-reversing probability

Why: write a vote as v_k = v u_k, where v is the population's sign and u_k = -1 with probability p_t. Then S^2 - n is
the sum of v_j v_k = u_j u_k over pairs j != k, and if votes are independent the mean of u_j u_k is (1 - 2 p_t)^2,
whatever v. So `pairs` has no bias, though v is never known; in a single round it may be negative.

Legend   S: sum of votes of a direction, n: votes that were cast, int32 [q] each; p_t: in [0, 1/2]
Mind     1 - p_t gives the same tallies with the other sign, so p_t is reported as if most votes were right; and where
         clients differ (data, attackers) it stands for them all: (1 - 2 p_t)^2 is the mean of (1 - 2 p_j)(1 - 2 p_k).
Promise  pure functions of what every row has seen; nothing is sent, nothing is decided by them
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def agreement(sums: np.ndarray, cast: np.ndarray) -> float:
    """Share in [1/2, 1] of the cast votes that agree with the majority, mean over directions that anybody voted on.

    sums, cast: int32 [q].  NaN if nobody voted.
    """
    voted = cast > 0
    return float(np.mean((1 + np.abs(sums[voted]) / cast[voted]) / 2)) if voted.any() else math.nan


def pairs(sums: np.ndarray, cast: np.ndarray) -> float:
    """Mean product of two clients' votes, an unbiased estimate of (1 - 2 p_t)^2, in [-1, 1].

    sums, cast: int32 [q].  Mean over directions with two votes or more; NaN if there is none.
    """
    enough = cast >= 2
    s, n = sums[enough].astype(np.float64), cast[enough].astype(np.float64)
    return float(np.mean((s * s - n) / (n * (n - 1)))) if len(n) else math.nan


def sign_error(pairs: Sequence[float]) -> float:
    """Estimate of p_t in [0, 1/2] from the `pairs` of a window of rounds, in any order; NaN if none of them is finite.

    The mean comes first, the root after it: a root of every round would be biased, and most have none near p_t = 1/2.
    """
    known = [value for value in pairs if math.isfinite(value)]
    return (1 - math.sqrt(max(0.0, math.fsum(known) / len(known)))) / 2 if known else math.nan


def votes_of(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(sums, cast) int32 [s]: slopes, floating [K, s], taken as votes; 0 and what is not finite is none."""
    votes = np.where(np.isfinite(values), np.sign(values), 0).astype(np.int32)
    return votes.sum(0, dtype=np.int32), np.abs(votes).sum(0, dtype=np.int32)
