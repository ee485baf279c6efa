from __future__ import annotations

import numpy as np
import pytest

from hpcfed.algorithms import make_algorithm
from hpcfed.errors import DivergedError
from hpcfed.messages import Slopes, Tally
from hpcfed.orbit import unpack_signs
from hpcfed.seeds import derive
from tests.support.orbits import make

CONSTANT = {"name": "constant", "warmup": 0, "rounds": 100, "final": 0.0}


def feedsign(q: int = 1, seed: int = 3, **changes: object):
    return make_algorithm(make(algorithm="feedsign", directions=q, run_seed=seed, payload="signs", **changes))


def votes_of(algorithm, values, clients, t: int) -> np.ndarray:
    return algorithm.ballots(Slopes(clients, np.array(values), np.zeros(len(values))), t)


def tally(sums: list[int], cast: list[int], voters: int = 5) -> Tally:
    return Tally(np.array(sums, np.int32), np.array(cast, np.int32), voters)


def test_a_vote_is_the_sign_of_the_slope_and_what_is_not_finite_abstains():
    slopes = np.array([[0.5, -1e-300], [np.nan, np.inf], [-np.inf, 3.0], [-0.1, 1e-30]])
    votes = votes_of(feedsign(2), slopes, [0, 1, 2, 3], 0)
    assert votes.dtype == np.int8
    assert votes.tolist() == [[1, -1], [0, 0], [0, 1], [-1, 1]]


def test_a_zero_slope_votes_by_a_coin_of_its_own():
    votes = [votes_of(feedsign(2), np.zeros((50, 2)), range(50), t) for t in range(20)]
    assert set(np.unique(votes)) == {-1, 1}
    flat = np.array(votes).reshape(20 * 50, 2)
    assert abs(flat.mean()) < 0.1 and abs((flat[:, 0] * flat[:, 1]).mean()) < 0.15  # fair, and one a direction
    # A client's coin does not depend on who is evaluated beside it.
    again = votes_of(feedsign(2), np.zeros((2, 2)), [49, 7], 3)
    assert again.tolist() == votes[3][[49, 7]].tolist()
    assert votes_of(feedsign(2, seed=4), np.zeros((50, 2)), range(50), 3).tolist() != votes[3].tolist()


def test_the_majority_decides_each_direction_alone():
    decision = feedsign(3).decide(tally([3, -1, 5], [5, 5, 5]), 7, None)
    assert unpack_signs(decision, 3).tolist() == [1, -1, 1]


def test_a_tie_is_decided_by_a_fair_coin_of_the_run_seed():
    decided = [unpack_signs(feedsign(2).decide(tally([0, 0], [4, 4], 4), t, None), 2) for t in range(500)]
    assert set(np.unique(decided)) == {-1, 1} and abs(np.mean(decided)) < 0.15
    assert [unpack_signs(feedsign(2).decide(tally([0, 0], [4, 4], 4), t, None), 2).tolist() for t in range(500)] == [
        d.tolist() for d in decided
    ]


def test_one_direction_without_votes_is_a_tie_and_none_with_any_is_the_end():
    assert unpack_signs(feedsign(2).decide(tally([-2, 0], [2, 0]), 0, None), 2)[0] == -1
    with pytest.raises(DivergedError, match=r"^round 9: all 5 clients abstained, .*algorithm\.lr"):
        feedsign(2).decide(tally([0, 0], [0, 0]), 9, None)


def test_the_update_moves_against_the_vote_by_lr_over_q():
    algorithm = feedsign(2, lr=0.3, schedule=CONSTANT)
    update = algorithm.decode(algorithm.decide(tally([1, -3], [5, 5]), 4, None), 4)
    assert update.seeds.tolist() == [derive(3, "direction", 4, 0), derive(3, "direction", 4, 1)]
    assert update.seeds.tolist() == algorithm.plan(4, None).seeds[0].tolist()
    assert update.coefficients.dtype == np.float32
    assert update.coefficients.tolist() == [np.float32(0.15), -np.float32(0.15)]
    assert (algorithm.uplink_bits, algorithm.downlink_bits) == (2, 2)
