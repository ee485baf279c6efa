"""FedKSeed and FedKSeed-Pro: local walks along a pool of Kp seeds, under 18 KB a round (Qin et al. 2024).

    pool              s_1 .. s_Kp, drawn once
    every client k    walks tau steps v <- v - lr p z(s_j), each j drawn from the pool     probe/slopes.py
                      sends (j, p) of its steps
    the server        A_j <- A_j + (n_k / n) p for every step, n_k: the client's examples  decide
    everybody         w = w_0 - lr sum_j A_j z(s_j)                                        decode, weights/mover.py

So A is the model: who joins late, resumes or replays draws Kp directions once, whatever the number of rounds. With a
schedule, p counts by lr_t / lr. A step whose slope is not finite is left out, and a client without any does not count.

Pro draws j with probability softmax(minmax(m)), m_j the mean of |clip(p, c)| over all steps along s_j so far, a first 0
included; uniformly in round 0.

Orbit     float32 [Kp], A after the round; Pro: [3, Kp], A, the sum of |clip(p)|, and how many it sums
Settings  pool (Kp), steps (tau), cohort (K), clip (c)
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from ..clients.pool import Pool
from ..config import find_traits
from ..config.methods import FedKSeedConfig, FedKSeedProConfig
from ..messages import Reports, Steps, Tally, Update
from ..orbit import Header
from ..seeds import derive, words
from .base import Algorithm, Last, Method, diverged, expect_counts, expect_width, pack_floats, unpack_floats
from .schedule import step_size


def fedkseed(header: Header, pro: bool = False) -> Algorithm:
    """FedKSeed with the header's pool, local steps and cohort."""
    settings, root = header.settings, header.run_seed
    size, steps, cohort = settings["pool"], settings["steps"], settings["cohort"]
    expect_width(header, 3 if pro else 1, size)
    expect_counts(size, steps, cohort)

    @cache
    def pool() -> np.ndarray:
        return np.array(words(derive(root, "pool"), size), np.uint64)

    def drawn(t: int, last: Last) -> np.ndarray:
        """Index in the pool of every step of every client, [K, tau]."""
        if pro and last:
            edges = np.cumsum(probabilities(*unpack_floats(last, 3, size)[1:].astype(np.float64)))
            edges = edges[:-1] / edges[-1]
        else:
            edges = np.arange(1, size) / size
        u = np.array([words(derive(root, "pool draw", t, k), steps) for k in range(cohort)], np.float64) / 2**64
        return np.searchsorted(edges, u, side="right")

    def plan(t: int, last: Last) -> Steps:
        return Steps(pool()[drawn(t, last)], np.full(steps, step_size(header.lr, header.schedule, t)), "step")

    def decide(reports: Tally | Reports, t: int, last: Last) -> bytes:
        assert isinstance(reports, Reports)
        taken = np.isfinite(reports.values)
        if not taken.any():
            raise diverged(header, t, cohort)
        j = drawn(t, last)[taken]
        p = reports.values[taken].astype(np.float64)
        sizes = np.where(taken.any(1), reports.sizes, 0)
        shares = np.broadcast_to((sizes / sizes.sum())[:, None], taken.shape)[taken]
        before = unpack_floats(last, -1, size) if last else np.zeros((3 if pro else 1, size), np.float32)
        after = before.astype(np.float64)
        after[0] += np.bincount(j, shares * p * (step_size(header.lr, header.schedule, t) / header.lr), size)
        if pro:
            after[1] += np.bincount(j, np.minimum(np.abs(p), settings["clip"]), size)
            after[2] += np.bincount(j, minlength=size)
        return pack_floats(after)

    def decode(decision: bytes, t: int) -> Update:
        return Update(pool(), np.nan_to_num(unpack_floats(decision, -1, size)[0]), header.lr, whole=True)

    return Algorithm(plan, decide, decode, 64 * steps, 32 * size * (2 if pro else 1), cumulative=True)


def fedkseed_pro(header: Header) -> Algorithm:
    """FedKSeed that draws a seed the more often the larger the slopes along it were."""
    return fedkseed(header, pro=True)


def probabilities(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    """float64 [Kp], sum 1, from the sum of |clip(p)| along every seed and the number of steps."""
    m = total / (count + 1)  # the first 0 counts as one
    x = (m - m.min()) / (m.max() - m.min() + 1e-10)
    e = _exp(x - 1)
    return np.asarray(e / e.sum())


def _exp(x: np.ndarray) -> np.ndarray:
    """exp of float64 in [-1, 0] by its series, in a fixed order.

    A math library's last bit differs between machines, and rows with other probabilities would walk along other seeds.
    """
    total = np.ones_like(x)
    for k in range(18, 0, -1):
        total = 1 + x / k * total
    return total


def settings(a: FedKSeedConfig, pool: Pool) -> dict[str, Any]:
    """What the header says beside the common fields."""
    return {"cohort": pool.cohort_size, "pool": a.pool_size, "steps": a.local_steps, "width": a.pool_size}


def pro_settings(a: FedKSeedProConfig, pool: Pool) -> dict[str, Any]:
    """The same for FedKSeed-Pro."""
    return settings(a, pool) | {"clip": a.history_clip, "width": 3 * a.pool_size}


def slopes(header: Header) -> int:
    """Of a client's walk."""
    return int(header.settings["steps"])


def moves(header: Header) -> int:
    """The whole pool, and the clients' walks."""
    return int(header.settings["pool"] + header.settings["cohort"] * header.settings["steps"])


METHOD = Method("fedkseed", find_traits("fedkseed"), fedkseed, settings, slopes, moves)
PRO = Method("fedkseed-pro", find_traits("fedkseed-pro"), fedkseed_pro, pro_settings, slopes, moves)
