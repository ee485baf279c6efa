"""No round is begun that the budget has no room for, and what was spent is that of the client that voted most often."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from hpcfed.config import PrivacyConfig
from hpcfed.errors import ConfigError
from hpcfed.privacy import most_votes, total_epsilon
from hpcfed.privacy.budget import Budget

EPSILON, DELTA = 0.5, 1e-5


def cohort(t: int) -> Sequence[int]:
    """Client 0 in every round, another client beside it."""
    return [0, 1 + t % 3]


def everybody(t: int) -> Sequence[int]:
    return range(4)


def budget_of(budget: float | None, directions: int = 1, who=cohort) -> Budget:
    config = PrivacyConfig(mechanism="local", epsilon=EPSILON, delta=DELTA, budget=budget)
    return Budget(config, directions, 4, who)


def rounds_of(budget: Budget, most: int = 1000) -> int:
    """How many rounds are run until there is no room."""
    for t in range(most):
        if not budget.room_for(t):
            return t
        budget.spend(t)
    return most


@pytest.mark.parametrize(("total", "directions"), [(0.6, 1), (2.0, 1), (8.0, 1), (2.0, 3), (8.0, 3)])
@pytest.mark.parametrize("who", [cohort, everybody])
def test_a_run_ends_with_the_last_round_that_fits(total, directions, who):
    budget = budget_of(total, directions, who)
    rounds = rounds_of(budget)
    assert rounds == most_votes(EPSILON, DELTA, total) // directions > 0
    assert budget.votes == rounds * directions
    assert (
        total_epsilon(EPSILON, budget.votes, DELTA) <= total < total_epsilon(EPSILON, budget.votes + directions, DELTA)
    )


def test_clients_that_have_voted_less_may_vote_on():
    budget = budget_of(1.0, who=lambda t: [0] if t < 2 else [1])
    assert most_votes(EPSILON, DELTA, 1.0) == 2
    assert rounds_of(budget) == 4 and budget.votes == 2


def test_no_room_for_one_round():
    with pytest.raises(
        ConfigError, match=r"privacy\.budget=0\.4: one round alone costs 0\.49\d+; lower privacy\.epsilon"
    ):
        budget_of(0.4)
    with pytest.raises(ConfigError, match=r"privacy\.budget=1: one round alone costs 1\.\d+; lower privacy\.epsilon"):
        budget_of(1.0, directions=3)


def test_without_a_budget_there_is_always_room_and_it_is_counted_all_the_same():
    budget = budget_of(None)
    assert budget.votes == 0 and budget.summary()["epsilon"] == 0.0
    assert rounds_of(budget, 300) == 300 and budget.votes == 300


def test_each_restart_counts_as_one_round_more():
    straight, again = budget_of(8.0), budget_of(8.0)
    for t in range(5):
        straight.spend(t)
    again.resumed(5, restarts=2)
    assert straight.votes == 5 and again.votes == 7
    most = most_votes(EPSILON, DELTA, 8.0)
    assert rounds_of(budget_of(8.0)) == most
    full = budget_of(8.0)
    full.resumed(most - 2, restarts=2)
    assert not full.room_for(most - 2) and full.votes == most
    ended = budget_of(8.0)
    ended.resumed(most, restarts=1)  # no round was begun after that restart
    assert not ended.room_for(most) and ended.votes == most


def test_the_summary_says_what_was_spent():
    budget = budget_of(8.0, directions=2)
    for t in range(3):
        budget.spend(t)
    assert budget.summary() == {
        "epsilon": total_epsilon(EPSILON, 6, DELTA),
        "delta": DELTA,
        "epsilon_per_vote": EPSILON,
        "votes_of_one_client": 6,
        "neighbours": "runs that differ in the votes of one client",
    }
