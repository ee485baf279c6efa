"""DP-FeedSign: one random bit a direction in place of the exact majority, or of the exact vote.

Formula  central  P(f = +1) = p+ / (p+ + p-), p+- = exp(epsilon q+- / 4), q+- = sum_k (1/2 +- v_k)   FeedSign, def. 3
                  q+ - q- = 2 S, so P(f = +1) = 1 / (1 + exp(-epsilon S / 2)): the exponential mechanism
         local    P(f_k = +1) = 1 / (1 + exp(-epsilon v_k)): randomised response                     Warner 1965
         draw     True with probability exp(-x), from fair integers alone     Canonne, Kamath, Steinke 2020, algorithm 1
Legend   v_k: vote of client k, -1, 0 (abstains) or +1.  S: sum of the votes.  epsilon: of one vote, > 0
Promise  Neighbours are two rounds that differ in one client's vote, whatever it was and became. No result is more
         than exp(epsilon) times as likely under the one as under the other: (epsilon, 0)-differential privacy.
         It holds for the numbers that are drawn, not only on paper: no probability is ever rounded to a float.
         The generator is the operating system's. Nothing seeds, logs or stores it, so no seed of a run foretells a
         draw.  Outside the promise: how long a draw takes, which depends on the tally by microseconds.
"""

from __future__ import annotations

import math
import secrets

import numpy as np


def majority(sums: np.ndarray, epsilon: float) -> np.ndarray:
    """sums: integers [q], sum of the votes along each direction -> int8 [q] in {-1, +1}, drawn independently.

    Only who may know the tally may call this: privacy comes from publishing the result alone.
    """
    assert sums.ndim == 1 and np.issubdtype(sums.dtype, np.integer), sums
    top, bottom = _ratio(epsilon)
    return np.array([_side(int(total) * top, 2 * bottom) for total in sums], np.int8)


def respond(votes: np.ndarray, epsilon: float) -> np.ndarray:
    """votes: int8 [m, q] in {-1, 0, +1} -> int8 [m, q] in {-1, +1}: each flipped with chance 1 / (1 + exp(epsilon)).

    An abstention becomes a fair coin: a 0 that stayed a 0 would tell that this client's loss was not finite.
    """
    assert votes.ndim == 2 and votes.dtype == np.int8 and (np.abs(votes) <= 1).all(), votes
    top, bottom = _ratio(epsilon)
    said = [_side(int(vote) * top, bottom) for vote in votes.flat]
    return np.array(said, np.int8).reshape(votes.shape)


def _ratio(epsilon: float) -> tuple[int, int]:
    assert math.isfinite(epsilon) and epsilon > 0, epsilon
    return float(epsilon).as_integer_ratio()  # exact: a float is a fraction


def _side(top: int, bottom: int) -> int:
    """+1 with probability 1 / (1 + exp(-top / bottom)), else -1; top of either sign, bottom > 0."""
    likely = 1 if top >= 0 else -1
    while True:
        if _chance(1, 2):
            return likely
        if _exp_chance(abs(top), bottom):
            return -likely


def _exp_chance(top: int, bottom: int) -> bool:
    """True with probability exp(-top / bottom); top >= 0: one chance of exp(-1) for each whole, one for the rest."""
    wholes, rest = divmod(top, bottom)
    return all(_series_chance(1, 1) for _ in range(wholes)) and _series_chance(rest, bottom)


def _series_chance(top: int, bottom: int) -> bool:
    """True with probability exp(-x), x = top / bottom in [0, 1].

    Chances of x/1, x/2, x/3 ... are taken until one fails. The k-th is the first to fail with probability
    x^(k-1)/(k-1)! - x^k/k!; over the odd k this adds up to the series of exp(-x).
    """
    k = 1
    while _chance(top, bottom * k):
        k += 1
    return k % 2 == 1


def _chance(top: int, bottom: int) -> bool:
    """True with probability top / bottom exactly."""
    return secrets.randbelow(bottom) < top
