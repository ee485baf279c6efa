"""Step size of a round: constant, linear or cosine, after a linear warm-up from 0.

Replay on another machine must find the same bits, so nothing here calls a math library: the cosine is a polynomial
in a fixed order of operations, exact to a few units in the last place of a double.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def step_size(lr: float, schedule: Mapping[str, Any], t: int) -> float:
    """lr of round t (from 0). schedule: name, warmup (rounds), rounds (planned), final (fraction of lr at the end)."""
    warmup, rounds, final = schedule["warmup"], schedule["rounds"], schedule["final"]
    if t < warmup:
        return lr * ((t + 1) / (warmup + 1))
    if schedule["name"] == "constant":
        return lr
    x = min((t - warmup) / max(rounds - warmup, 1), 1.0)
    remaining = 1.0 - x if schedule["name"] == "linear" else _half_cosine(x)
    return lr * (final + (1.0 - final) * remaining)


def _half_cosine(x: float) -> float:
    """(1 + cos(pi x)) / 2 for x in [0, 1], as 1 - sin(pi x / 2)^2 by the sine's Taylor series."""
    y = x * 1.5707963267948966
    term = total = y
    for k in range(3, 25, 2):
        term = -term * y * y / (k * (k - 1))
        total += term
    return max(0.0, 1.0 - total * total)  # at x = 1 rounding would leave -2e-16, a step backwards
