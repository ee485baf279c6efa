"""A method of your own: clients vote on q directions a round, and the perturbation scale decays.

hpcfed train digits --set algorithm.name=examples/my_method.py:METHOD --set algorithm.directions=4
hpcfed orbit replay runs/digits --base digits-vit --out tuned --method examples/my_method.py:METHOD

every client    sends the sign of its slope along each direction, found at mu_t = mu decay^t     plan, ballots
the tally       f_i = +1 where as many vote for as against, or more                              decide
everybody       w <- w - lr / q sum_i f_i z(s_i)              signSGD with majority vote, Bernstein 2018    decode
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from pydantic import Field

from hpcfed.algorithms import Algorithm, Last, Method, directions, diverged, step_size
from hpcfed.clients import Pool
from hpcfed.config import AlgorithmConfig, Traits
from hpcfed.messages import Reports, Slopes, Steps, Tally, Update
from hpcfed.orbit import Header, pack_signs, unpack_signs


class Settings(AlgorithmConfig):
    """The section [algorithm] of this method: what all methods have, and one setting of its own."""

    decay: Annotated[float, Field(gt=0, le=1)] = 0.999
    """mu is multiplied by this after every round."""


def settings(a: Settings, pool: Pool) -> dict[str, Any]:
    """What the orbit says beside seed, step size and the like; `make` gets it back as header.settings."""
    return {"mu": a.mu, "decay": a.decay}


def make(header: Header) -> Algorithm:
    """The functions of a run, from its orbit's header alone: a replay calls `decode`, and so does a training run."""
    q, seed, mu, decay = header.directions, header.run_seed, header.settings["mu"], header.settings["decay"]

    def plan(t: int, last: Last) -> Steps:
        return Steps(directions(seed, t, q), mu=mu * decay**t)

    def ballots(slopes: Slopes, t: int) -> np.ndarray:
        return np.where(np.isfinite(slopes.values), np.sign(slopes.values), 0).astype(np.int8)  # 0 abstains

    def decide(tally: Tally | Reports, t: int, last: Last) -> bytes:
        assert isinstance(tally, Tally)
        if not tally.cast.any():
            raise diverged(header, t, tally.voters)
        return pack_signs(np.where(tally.sums >= 0, 1, -1))

    def decode(decision: bytes, t: int) -> Update:
        signs = unpack_signs(decision, q).astype(np.float32)
        return Update(directions(seed, t, q)[0], signs, step_size(header.lr, header.schedule, t), q)

    return Algorithm(plan, decide, decode, uplink_bits=q, downlink_bits=q, ballots=ballots)


METHOD = Method("decaying-vote", Traits("votes", Settings, takes=("ballot", "directions")), make, settings)
