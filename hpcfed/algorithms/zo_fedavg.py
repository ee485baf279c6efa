"""ZO-FedAvg: clients walk l steps of their own, then everybody takes the mean of the walks (FeedSign's Avg-1, Avg-2).

    every client k    v = w; l times: p_kj = slope at v along z(s_kj), v <- v - lr p_kj z(s_kj) probe/slopes.py
                      sends (s_kj, p_kj), j = 1..l
    everybody         w <- w - lr (1/K) sum_k sum_j p_kj z(s_kj)                                decode, weights/mover.py

The walk ends at w minus its own sum, so the second line is the mean of the K ends. l = 5, or one pass over the client's
data in batches, where a client with fewer data walks fewer steps. A step whose slope is not finite is left out.

Orbit     float32 [K, l], NaN where there was no step
Settings  cohort (K), steps (l, of the client with the most data), batches ("step" or "epoch")
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..clients.pool import Pool
from ..config import find_traits
from ..config.methods import ZoFedAvgConfig
from ..messages import Reports, Steps, Tally, Update
from ..orbit import Header
from .base import Algorithm, Last, Method, directions, diverged, expect_choice, expect_width, pack_floats, unpack_floats
from .schedule import step_size


def zo_fedavg(header: Header) -> Algorithm:
    """ZO-FedAvg with the header's number of local steps."""
    expect_width(header, header.settings["cohort"], header.settings["steps"])
    expect_choice("batches", header.settings["batches"], "step", "epoch")
    clients, steps = range(header.settings["cohort"]), header.settings["steps"]

    def plan(t: int, last: Last) -> Steps:
        walk = np.full(steps, step_size(header.lr, header.schedule, t))
        return Steps(directions(header.run_seed, t, steps, clients), walk, header.settings["batches"])

    def decide(reports: Tally | Reports, t: int, last: Last) -> bytes:
        assert isinstance(reports, Reports)
        if not np.isfinite(reports.values).any():
            raise diverged(header, t, len(reports.values))
        return pack_floats(reports.values)

    def decode(decision: bytes, t: int) -> Update:
        p = unpack_floats(decision, len(clients), steps)
        taken = np.isfinite(p)
        seeds = directions(header.run_seed, t, steps, clients)
        walkers = max(1, int(taken.any(1).sum()))
        return Update(seeds[taken], p[taken], step_size(header.lr, header.schedule, t), walkers)

    bits = 64 * steps
    return Algorithm(plan, decide, decode, bits, bits * len(clients))


def settings(a: ZoFedAvgConfig, pool: Pool) -> dict[str, Any]:
    """What the header says beside the common fields."""
    epoch, k = a.local_steps == "epoch", pool.cohort_size
    steps = pool.most_steps() if isinstance(a.local_steps, str) else a.local_steps
    return {"cohort": k, "steps": steps, "batches": "epoch" if epoch else "step", "width": k * steps}


METHOD = Method(
    "zo-fedavg",
    find_traits("zo-fedavg"),
    zo_fedavg,
    settings,
    slopes=lambda header: int(header.settings["steps"]),
    moves=lambda header: 2 * header.width,  # every client walks, and then everybody walks the mean
)
