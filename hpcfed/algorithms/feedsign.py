"""FeedSign: one bit up, one bit down, a round (Cai, Chen, Zhu: FeedSign, Algorithm 1).

    every client k    p_k = slope of its loss along z(s_t)                       eq. 1     probe.py
                      sends sign(p_k)                                            eq. 2     ballots
    the tally         f = sign(sum_k sign(p_k))                                  eq. 4     decide
    everybody         w <- w - f lr z(s_t)                                       eq. 3     decode, update.py

With q directions a round, each is voted on alone and moves lr / q. The paper leaves sign(0) open. Here a client whose
slope is exactly 0 (16-bit losses often tie) votes by a coin of its own, for a common answer would outvote those who
know; a client whose slope is not finite abstains; and a tied tally is decided by a coin. All coins are derived from
the run seed, so that an update is always one bit a direction and the same on every rank.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import DivergedError
from ..messages import Tally, Update
from ..orbit import Header, pack_signs, unpack_signs
from ..seeds import coin, derive
from .base import Algorithm
from .schedule import step_size


def feedsign(header: Header) -> Algorithm:
    """FeedSign for a run with this header's seed, directions and step size."""
    q = header.directions

    def directions(t: int) -> list[int]:
        return [derive(header.run_seed, "direction", t, i) for i in range(q)]

    def ballots(slopes: np.ndarray, clients: Sequence[int], t: int) -> np.ndarray:
        votes = np.where(np.isfinite(slopes), np.sign(slopes), 0).astype(np.int8)
        for k, i in np.argwhere(slopes == 0):
            votes[k, i] = coin(derive(header.run_seed, "zero", t, int(i), clients[k]))
        return votes

    def decide(tally: Tally, t: int) -> bytes:
        if not tally.cast.any():
            why = f"no longer finite; a smaller algorithm.lr (now {header.lr:g}) or model.dtype=float32 may cure it"
            if t == 0:
                why = "not finite from the start: the base model is damaged, or overflows unless model.dtype=float32"
            raise DivergedError(f"round {t}: all {tally.voters} clients abstained, since their loss is {why}")
        coins = [coin(derive(header.run_seed, "tie", t, i)) for i in range(q)]
        return pack_signs(np.where(tally.sums != 0, np.sign(tally.sums), coins))

    def decode(payload: bytes, t: int) -> Update:
        c = np.float32(step_size(header.lr, header.schedule, t) / q)
        return Update(np.array(directions(t), np.uint64), unpack_signs(payload, q).astype(np.float32) * c)

    return Algorithm(directions, ballots, decide, decode, uplink_bits=q, downlink_bits=q)
