"""MeZO: the centralised reference, one owner of all data (Malladi et al. 2023, Algorithm 1).

    p = slope of the loss of the round's batch along z(s_t)
    w <- w - lr p z(s_t)

The batch of clients.batch examples is drawn from all data and cut into slices that rows evaluate side by side; a
slice's slope counts by its examples, so p is that of the whole batch. Nothing is sent: there are no clients.

Orbit     float32 [q], the slopes
"""

from __future__ import annotations

import numpy as np

from ..config import find_traits
from ..messages import Reports, Steps, Tally, Update
from ..orbit import Header
from .base import Algorithm, Last, Method, directions, diverged, expect_width, pack_floats, unpack_floats
from .schedule import step_size


def mezo(header: Header) -> Algorithm:
    """MeZO with the header's seed, directions and step size."""
    q, seed = header.directions, header.run_seed
    expect_width(header, q)

    def plan(t: int, last: Last) -> Steps:
        return Steps(directions(seed, t, q))

    def decide(reports: Tally | Reports, t: int, last: Last) -> bytes:
        assert isinstance(reports, Reports)
        known = np.isfinite(reports.values)
        if not known.any():
            raise diverged(header, t, 1)
        weights = np.where(known, reports.sizes[:, None], 0).astype(np.float64)
        return pack_floats(np.where(known, reports.values * weights, 0).sum(0) / np.maximum(weights.sum(0), 1))

    def decode(decision: bytes, t: int) -> Update:
        lr = step_size(header.lr, header.schedule, t)
        return Update(directions(seed, t, q)[0], np.nan_to_num(unpack_floats(decision, q)), lr, q)

    return Algorithm(plan, decide, decode, uplink_bits=0, downlink_bits=0)


METHOD = Method("mezo", find_traits("mezo"), mezo)
