"""Agreement of signs: known answers, simulated votes of a known error, the binomial tail by enumeration."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcfed.runs.agreement import agreement, pairs, sign_error, votes_of

VOTES = st.lists(st.sampled_from([-1, 0, 1]), min_size=1, max_size=9)


def tally(*directions: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """(sums, cast) of one list of votes a direction."""
    return (
        np.array([sum(votes) for votes in directions], np.int32),
        np.array([sum(map(abs, votes)) for votes in directions], np.int32),
    )


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def test_known_answers():
    five = tally([1, 1, 1, -1, 1])
    assert agreement(*five) == 0.8 and pairs(*five) == (9 - 5) / 20
    assert agreement(*tally([1, -1])) == 0.5 and pairs(*tally([1, -1])) == -1
    assert agreement(*tally([-1, -1, -1])) == 1 == pairs(*tally([-1, -1, -1]))
    assert agreement(*tally([1, 0, 0], [1, -1, 0])) == 0.75  # one vote agrees with itself
    assert pairs(*tally([1, 0, 0], [1, 1, 0])) == 1  # and makes no pair
    assert agreement(*tally([1, 1, -1], [0, 0, 0])) == pytest.approx(2 / 3)


def test_nobody_voted():
    assert math.isnan(agreement(*tally([0, 0]))) and math.isnan(pairs(*tally([0, 0])))
    assert math.isnan(pairs(*tally([1, 0]))) and agreement(*tally([1, 0])) == 1
    assert math.isnan(agreement(*tally())) and math.isnan(pairs(*tally()))
    assert math.isnan(sign_error([])) and math.isnan(sign_error([math.nan, math.nan]))


@given(st.lists(VOTES, min_size=1, max_size=4))
def test_both_are_what_they_say(directions):
    """Oracle: count the votes that agree; multiply every pair."""
    agreeing, products = [], []
    for votes in directions:
        cast = [v for v in votes if v]
        if cast:
            agreeing.append(max(cast.count(1), cast.count(-1)) / len(cast))
        if len(cast) > 1:
            products.append(np.mean([a * b for a, b in itertools.combinations(cast, 2)]))
    assert agreement(*tally(*directions)) == pytest.approx(np.mean(agreeing) if agreeing else math.nan, nan_ok=True)
    assert pairs(*tally(*directions)) == pytest.approx(np.mean(products) if products else math.nan, nan_ok=True)


def test_huge_tallies_do_not_overflow():
    n = np.array([10**9], np.int32)
    assert pairs(n, n) == 1 == agreement(n, n)  # n * n is far beyond int32


@pytest.mark.parametrize("p", [0.0, 0.1, 0.3, 0.4, 0.5])
@pytest.mark.parametrize("clients", [2, 5, 25])
def test_pairs_have_no_bias_by_enumeration(p, clients):
    """The mean over all outcomes, weighted by their probability, for clients with a common error p."""
    wrong = np.arange(clients + 1)
    chance = np.array([math.comb(clients, k) for k in wrong]) * p**wrong * (1 - p) ** (clients - wrong)
    found = [pairs(np.array([clients - 2 * k]), np.array([clients])) for k in wrong]
    assert chance @ found == pytest.approx((1 - 2 * p) ** 2, abs=1e-12)


@pytest.mark.parametrize(("p", "clients"), [(0.05, 5), (0.3, 5), (0.4, 5), (0.3, 25), (0.2, 2)])
def test_simulation_recovers_the_sign_error(p, clients):
    """Rounds of independent votes around a sign that nobody knows, of which a tenth are abstentions."""
    rounds, rng = 4000, generator(clients)
    population = rng.choice([-1, 1], (rounds, 1))
    votes = population * np.where(rng.random((rounds, clients)) < p, -1, 1) * (rng.random((rounds, clients)) > 0.1)
    found = [pairs(np.array([v.sum()]), np.array([np.abs(v).sum()])) for v in votes]
    known = np.array(found)[np.isfinite(found)]
    # by the delta method: d p / d mean = 1 / (4 (1 - 2 p))
    bound = 4 * known.std() / math.sqrt(len(known)) / (4 * (1 - 2 * p))
    assert abs(sign_error(found) - p) < bound < 0.05


def test_sign_error_keeps_its_range():
    assert sign_error([1.0]) == 0 and sign_error([-0.2, -1.0]) == 0.5 and sign_error([0.0]) == 0.5
    assert sign_error([0.25, math.nan]) == 0.25 and sign_error([0.5, 0.0]) == sign_error([0.0, 0.5]) == 0.25
    coins = generator(0).choice([-1, 1], (400, 5)).sum(1)
    assert 0.4 < sign_error([pairs(np.array([s]), np.array([5])) for s in coins]) <= 0.5


def test_votes_of_slopes():
    values = np.array([[1.5, -2.0, np.nan], [0.0, -1e-300, np.inf], [-0.1, 3.0, -np.inf], [7.0, -1.0, 0.0]], np.float32)
    sums, cast = votes_of(values)
    assert sums.tolist() == [1, -1, 0] and cast.tolist() == [3, 3, 0]  # -1e-300 is -0 in float32
    assert sums.dtype == cast.dtype == np.int32
    assert [a.tolist() for a in votes_of(np.empty((0, 2)))] == [[0, 0], [0, 0]]
