"""ZO-FedSGD: seed and slope up, a round (FeedSign's baseline; Cai, Chen, Zhu, eq. 2-4 with floats for signs).

    every client k    p_k = slope of its loss along z(s_k), s_k its own          eq. 1     probe/slopes.py
                      sends (s_k, p_k)
    everybody         w <- w - lr (1/K) sum_k p_k z(s_k)                         decode, weights/mover.py

seeds = "shared": all clients step along one z(s_t), so that only slopes travel and one number moves the weights: their
mean, or a robust one that a few lying clients cannot move far: the median, or the mean without the fraction `trim` at
each end (Yin et al. 2018). With q directions a round each moves lr / q. A client whose slope is not finite abstains.

Orbit     own seeds: float32 [K, q], the slopes; shared: float32 [q], what they were tallied to
Settings  cohort (K), seeds, tally, trim
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..clients.pool import Pool
from ..config import find_traits
from ..config.methods import ZoFedSGDConfig
from ..messages import Reports, Steps, Tally, Update
from ..orbit import Header
from .base import Algorithm, Last, Method, directions, diverged, expect_choice, expect_width, pack_floats, unpack_floats
from .schedule import step_size


def zo_fedsgd(header: Header) -> Algorithm:
    """ZO-FedSGD with the header's seed rule and tally."""
    q, seed, settings = header.directions, header.run_seed, header.settings
    own = settings["seeds"] == "own"
    expect_width(header, settings["cohort"], q) if own else expect_width(header, q)
    expect_choice("tally", settings["tally"], "mean", "median", "trimmed")
    slots = range(settings["cohort"]) if own else None

    def plan(t: int, last: Last) -> Steps:
        return Steps(directions(seed, t, q, slots))

    def decide(reports: Tally | Reports, t: int, last: Last) -> bytes:
        assert isinstance(reports, Reports)
        if not np.isfinite(reports.values).any():
            raise diverged(header, t, len(reports.values))
        if own:
            return pack_floats(reports.values)
        return pack_floats(np.array([tallied(p, settings["tally"], settings["trim"]) for p in reports.values.T]))

    def decode(decision: bytes, t: int) -> Update:
        p = unpack_floats(decision, -1, q)
        sent = np.isfinite(p)
        values = np.where(sent, p, 0) / np.maximum(sent.sum(0), 1).astype(np.float32)
        seeds = directions(seed, t, q, slots)
        return Update(seeds[sent], values[sent], step_size(header.lr, header.schedule, t), q)

    bits = 64 * q if own else 32 * q
    return Algorithm(plan, decide, decode, bits, bits * settings["cohort"] if own else bits)


def tallied(slopes: np.ndarray, how: str, trim: float) -> float:
    """One number for the finite ones of float32 [K] slopes along one direction; 0 if there are none.

    how: "mean", "median", or "trimmed": the mean without the floor(trim K) smallest and largest. K counts those who
    abstain too, or an abstention would let a liar through; at least one slope stays.
    """
    p = np.sort(slopes[np.isfinite(slopes)].astype(np.float64))
    if len(p) == 0:
        return 0.0
    if how == "mean":
        return float(np.mean(slopes[np.isfinite(slopes)], dtype=np.float64))  # in client order
    if how == "median":
        return float(np.median(p))
    cut = min(int(trim * len(slopes) + 1e-9), (len(p) - 1) // 2)  # 0.29 * 100 is a hair below 29
    return float(np.mean(p[cut : len(p) - cut]))


def settings(a: ZoFedSGDConfig, pool: Pool) -> dict[str, Any]:
    """What the header says beside the common fields."""
    many = pool.cohort_size if a.seeds == "own" else 1
    own = {"cohort": pool.cohort_size, "seeds": a.seeds, "tally": a.tally, "trim": a.trim}
    return own | {"width": a.directions * many}


METHOD = Method(
    "zo-fedsgd",
    find_traits("zo-fedsgd"),
    zo_fedsgd,
    settings,
    moves=lambda header: header.width,
    apart=lambda header: header.settings["seeds"] == "own",
)
