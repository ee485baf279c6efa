"""FeedSign: one bit up, one bit down, a round (Cai, Chen, Zhu: FeedSign, Algorithm 1).

    every client k    p_k = slope of its loss along z(s_t)                       eq. 1     probe/slopes.py
                      sends sign(p_k)                                            eq. 2     ballots
    the tally         f = sign(sum_k sign(p_k))                                  eq. 4     decide
    everybody         w <- w - f lr z(s_t)                                       eq. 3     decode, weights/mover.py

With q directions a round, each is voted on alone and moves lr / q. The paper leaves sign(0) open. Here a client whose
slope is exactly 0 (16-bit losses often tie) votes by a coin of its own, for a common answer would outvote those who
know; a client whose slope is not finite abstains; and a tied tally is decided by a coin. All coins are derived from
the run seed, so that an update is always one bit a direction and the same on every rank.
"""

from __future__ import annotations

import numpy as np

from ..config import find_traits
from ..messages import Reports, Slopes, Steps, Tally, Update
from ..orbit import Header, pack_signs, unpack_signs
from ..seeds import coin, derive
from .base import Algorithm, Last, Method, directions, diverged
from .schedule import step_size


def feedsign(header: Header) -> Algorithm:
    """FeedSign for a run with this header's seed, directions and step size."""
    q, seed = header.directions, header.run_seed
    if header.payload != "signs":
        raise ValueError(f"{header.width} {header.payload} a round where {q} signs belong")

    def plan(t: int, last: Last) -> Steps:
        return Steps(directions(seed, t, q))

    def ballots(slopes: Slopes, t: int) -> np.ndarray:
        votes = np.where(np.isfinite(slopes.values), np.sign(slopes.values), 0).astype(np.int8)
        for k, i in np.argwhere(slopes.values == 0):
            votes[k, i] = coin(derive(seed, "zero", t, int(i), slopes.clients[k]))
        return votes

    def decide(tally: Tally | Reports, t: int, last: Last) -> bytes:
        assert isinstance(tally, Tally)
        if not tally.cast.any():
            raise diverged(header, t, tally.voters)
        coins = [coin(derive(seed, "tie", t, i)) for i in range(q)]
        return pack_signs(np.where(tally.sums != 0, np.sign(tally.sums), coins))

    def decode(decision: bytes, t: int) -> Update:
        signs = unpack_signs(decision, q).astype(np.float32)
        return Update(directions(seed, t, q)[0], signs, step_size(header.lr, header.schedule, t), q)

    return Algorithm(plan, decide, decode, uplink_bits=q, downlink_bits=q, ballots=ballots)


METHOD = Method("feedsign", find_traits("feedsign"), feedsign)
