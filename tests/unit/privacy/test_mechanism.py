"""The draws of DP-FeedSign: what the paper prints, exactly, from a generator that nobody can seed.

A statistical test of n draws allows what Hoeffding's inequality gives at ONCE: it fails falsely once in 10^10 times.
"""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys

import mpmath
import numpy as np
import pytest

from hpcfed.privacy import majority, mechanism, respond

ONCE = 1e-10
DRAWS = 100_000
SLACK = math.sqrt(math.log(2 / ONCE) / (2 * DRAWS))  # |share - probability|: about 0.011
EPSILONS = [1e-6, 0.1, 0.5, 1.0, 3.7, 20.0]


class Ask(Exception):
    """A chance was taken whose outcome the script does not hold."""


def exact(monkeypatch: pytest.MonkeyPatch, draw, **chances) -> tuple[dict, mpmath.mpf]:
    """The probability of every result of draw(), by walking all outcomes of its chances; and what was not walked.

    chances: function of the mechanism -> the probability, by its arguments, that it says True.
    """
    results: dict = {}
    left = mpmath.mpf(0)
    paths = [((), mpmath.mpf(1))]
    while paths:
        script, weight = paths.pop()
        if weight < 1e-17:
            left += weight
            continue
        ahead = list(script)
        for name, probability_of in chances.items():

            def chance(top: int, bottom: int, ahead: list = ahead, probability_of=probability_of) -> bool:
                if ahead:
                    return ahead.pop(0)
                raise Ask(probability_of(top, bottom))

            monkeypatch.setattr(mechanism, name, chance)
        try:
            result = draw()
            results[result] = results.get(result, 0) + weight
        except Ask as ask:
            p = ask.args[0]
            paths += [(*way, weight * q) for way, q in ((((*script, True),), p), (((*script, False),), 1 - p)) if q]
    monkeypatch.undo()
    return results, left


def ratio(top: int, bottom: int) -> mpmath.mpf:
    return mpmath.mpf(min(top, bottom)) / bottom


def exp_ratio(top: int, bottom: int) -> mpmath.mpf:
    return mpmath.exp(-mpmath.mpf(top) / bottom)


def printed(votes: tuple[int, ...], epsilon: float) -> float:
    """P(f = +1) by eq. 18 and 19 of the paper; votes: p_k / |p_k|, 0 where the slope was not finite."""
    q_plus, q_minus = sum(0.5 + v for v in votes), sum(0.5 - v for v in votes)
    p_plus, p_minus = math.exp(epsilon * q_plus / 4), math.exp(epsilon * q_minus / 4)
    return p_plus / (p_plus + p_minus)


def probability(total: int, epsilon: float) -> float:
    """P(majority = +1) when the votes sum to `total`: the closed form that the mechanism's docstring claims."""
    return 1 / (1 + math.exp(min(-epsilon * total / 2, 700.0)))


@pytest.mark.parametrize("clients", range(1, 10))
def test_probability_is_the_printed_one(clients):
    for votes in itertools.product((-1, 0, 1), repeat=clients):
        for epsilon in (0.1, 1.0, 5.0):
            assert probability(sum(votes), epsilon) == pytest.approx(printed(votes, epsilon), rel=1e-12)


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_one_vote_shifts_the_majority_by_exp_epsilon_at_most(epsilon):
    highest = 0.0
    for others in range(-8, 9):  # what the eight other clients' votes add up to
        for one, other in itertools.permutations((-1, 0, 1), 2):
            up = probability(others + one, epsilon) / probability(others + other, epsilon)
            down = probability(-others - one, epsilon) / probability(-others - other, epsilon)  # of -1: by symmetry
            highest = max(highest, up, down)
    assert 1 < highest <= math.exp(epsilon) * (1 + 1e-12)


@pytest.mark.parametrize(("top", "bottom"), [(0, 1), (1, 7), (1, 2), (1, 1), (10**20 - 1, 10**20)])
def test_chance_by_the_series_is_exact(monkeypatch, top, bottom):
    found, left = exact(monkeypatch, lambda: mechanism._series_chance(top, bottom), _chance=ratio)
    assert left < 1e-15
    assert abs(found.get(True, 0) - exp_ratio(top, bottom)) <= left + 1e-15


@pytest.mark.parametrize(("top", "bottom"), [(0, 1), (3, 4), (1, 1), (5, 2), (12, 1), (10**20 + 1, 10**20)])
def test_chance_of_exp_is_exact(monkeypatch, top, bottom):
    found, left = exact(monkeypatch, lambda: mechanism._exp_chance(top, bottom), _series_chance=exp_ratio)
    assert left < 1e-15
    assert abs(found.get(True, 0) - exp_ratio(top, bottom)) <= left + 1e-15


#: A side is drawn from a coin and a chance of exp, which the tests above have shown to be exact.
SIDE = {"_chance": ratio, "_exp_chance": exp_ratio}


@pytest.mark.parametrize("total", [-7, -2, -1, 0, 1, 3, 9])
@pytest.mark.parametrize("epsilon", [0.1, 0.75, 2.0])
def test_majority_is_drawn_exactly(monkeypatch, total, epsilon):
    sums = np.array([total], np.int32)
    found, left = exact(monkeypatch, lambda: int(majority(sums, epsilon)[0]), **SIDE)
    wanted = 1 / (1 + mpmath.exp(-mpmath.mpf(epsilon) * total / 2))
    assert left < 1e-14
    assert abs(found.get(1, 0) - wanted) <= left + 1e-15 and abs(found.get(-1, 0) - (1 - wanted)) <= left + 1e-15


@pytest.mark.parametrize("epsilon", [1e-4, 0.3, 1.0, 2.5])
def test_response_is_drawn_exactly_and_private_against_everybody(monkeypatch, epsilon):
    says = {}
    for vote in (-1, 0, 1):
        votes = np.array([[vote]], np.int8)
        says[vote], left = exact(monkeypatch, lambda votes=votes: int(respond(votes, epsilon)[0, 0]), **SIDE)
        assert left < 1e-14
    flip = 1 / (1 + mpmath.exp(epsilon))
    assert abs(says[1][-1] - flip) < 1e-13 and abs(says[-1][1] - flip) < 1e-13 and abs(says[0][1] - 0.5) < 1e-13
    for one, other in itertools.permutations((-1, 0, 1), 2):
        for said in (-1, 1):
            assert says[one][said] / says[other][said] <= mpmath.exp(epsilon) * (1 + 1e-12)


def test_epsilon_is_taken_for_the_float_it_is():
    assert mechanism._ratio(0.1) == (3602879701896397, 36028797018963968)  # not 1 / 10


@pytest.mark.parametrize(("total", "epsilon"), [(0, 1.0), (1, 0.5), (-3, 1.0), (20, 0.01)])
def test_majority_of_many_draws(total, epsilon):
    drawn = majority(np.full(DRAWS, total, np.int32), epsilon)
    assert drawn.dtype == np.int8 and set(np.unique(drawn)) == {-1, 1}
    assert abs((drawn == 1).mean() - probability(total, epsilon)) < SLACK


def test_response_of_many_draws():
    votes = np.repeat(np.array([[1, 0, -1]], np.int8), DRAWS, axis=0)
    said = respond(votes, 1.0)
    assert said.dtype == np.int8 and said.shape == votes.shape
    keep = 1 / (1 + math.exp(-1))
    assert np.abs((said == 1).mean(0) - [keep, 0.5, 1 - keep]).max() < SLACK


def test_directions_are_drawn_independently():
    totals = np.array([0, 1, -2, 4], np.int32)
    drawn = majority(np.tile(totals, DRAWS), 0.5).reshape(DRAWS, 4).astype(float)
    mean = np.array([2 * probability(int(total), 0.5) - 1 for total in totals])
    assert np.abs(drawn.mean(0) - mean).max() < 2 * SLACK
    for i, j in itertools.combinations(range(4), 2):
        assert abs((drawn[:, i] * drawn[:, j]).mean() - mean[i] * mean[j]) < 2 * SLACK
    assert abs((drawn[1:, 0] * drawn[:-1, 0]).mean()) < 3 * SLACK  # from round to round, too


def test_large_tallies_and_no_directions():
    assert majority(np.array([100_000, -100_000], np.int32), 50.0).tolist() == [1, -1]
    assert majority(np.zeros(0, np.int32), 1.0).shape == (0,)
    assert respond(np.zeros((0, 3), np.int8), 1.0).shape == (0, 3)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.inf, math.nan])
def test_no_privacy_is_not_drawn(epsilon):
    with pytest.raises(AssertionError):
        majority(np.array([1], np.int32), epsilon)


def test_no_seed_foretells_a_draw():
    code = (
        "import random, numpy, torch\n"
        "from hpcfed.privacy import majority, respond\n"
        "for _ in range(2):\n"
        "    random.seed(0); numpy.random.seed(0); torch.manual_seed(0)\n"
        "    print(majority(numpy.zeros(128, numpy.int32), 1.0).tolist())\n"
        "    print(respond(numpy.zeros((1, 128), numpy.int8), 1.0).tolist()[0])\n"
    )
    env = {**os.environ, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
    started = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=env) for _ in "ab"]
    lines = [line for process in started for line in process.communicate(timeout=120)[0].splitlines()]
    assert len(lines) == 8 and len(set(lines)) == 8


def test_drawing_disturbs_no_generator():
    before = np.random.get_state()[1].copy()
    majority(np.zeros(100, np.int32), 1.0)
    assert (np.random.get_state()[1] == before).all()
