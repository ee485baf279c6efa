"""What a run spends of its budget, and what it promises its clients."""

from __future__ import annotations

from typing import Any

from ..config import Recipe
from ..errors import ConfigError
from .accountant import most_votes, total_epsilon


def most_rounds_a_client(recipe: Recipe) -> float:
    """How often a client may vote before privacy.budget is spent; infinity without one."""
    p = recipe.privacy
    if p.budget is None or p.epsilon is None:
        return float("inf")
    most = most_votes(p.epsilon, p.delta, p.budget) // recipe.algorithm.directions
    if most == 0:
        cost = total_epsilon(p.epsilon, recipe.algorithm.directions, p.delta)
        raise ConfigError(f"privacy.budget={p.budget:g}: one round alone costs {cost:g}; lower privacy.epsilon")
    return most


TRUSTED = {
    "central": "row 0, which alone sees the tally and draws the majority",
    "local": "nobody: every client draws its own noise",
}


def privacy_summary(recipe: Recipe, rounds: int) -> dict[str, Any] | None:
    """What the run promises its clients, or None.  rounds: that the client which voted most has voted in."""
    p = recipe.privacy
    if p.mechanism == "none" or p.epsilon is None:
        return None
    # No round is begun that the budget has no room for, so a restart after the last one has nothing to add.
    votes = int(min(rounds, most_rounds_a_client(recipe))) * recipe.algorithm.directions
    return {
        "mechanism": p.mechanism,
        "epsilon": total_epsilon(p.epsilon, votes, p.delta) if votes else 0.0,
        "delta": p.delta,
        "epsilon_per_vote": p.epsilon,
        "votes_of_one_client": votes,
        "neighbours": "runs that differ in the votes of one client",
        "trusted": TRUSTED[p.mechanism],
    }
