"""What a private run has spent, whether it has room for another round, and what it promises its clients.

Formula  total epsilon of the client that voted most often    accountant.py
Promise  no round is begun that the budget has no room for; what has been spent depends on no data
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..config import PrivacyConfig
from ..errors import ConfigError
from .accountant import Ledger, most_votes, total_epsilon


class Budget:
    """directions: votes of a client in a round.  clients: of the run.  cohort: round -> ids of those that vote."""

    def __init__(
        self, config: PrivacyConfig, directions: int, clients: int, cohort: Callable[[int], Sequence[int]]
    ) -> None:
        assert config.epsilon is not None, "a private run has an epsilon"
        self._epsilon, self._delta, self._directions = config.epsilon, config.delta, directions
        self._budget, self._ledger, self._cohort, self._restarts = config.budget, Ledger(clients), cohort, 0
        self._most = self._most_rounds()

    def _most_rounds(self) -> float:
        """How often a client may vote; infinity without a budget.  ConfigError if there is no room for one round."""
        if self._budget is None:
            return float("inf")
        most = most_votes(self._epsilon, self._delta, self._budget) // self._directions
        if most == 0:
            cost = total_epsilon(self._epsilon, self._directions, self._delta)
            raise ConfigError(f"privacy.budget={self._budget:g}: one round alone costs {cost:g}; lower privacy.epsilon")
        return most

    def room_for(self, t: int) -> bool:
        """Whether the clients of round t may vote once more."""
        return self._ledger.would_be(self._cohort(t)) + self._restarts <= self._most

    def spend(self, t: int) -> None:
        """The clients of round t have voted."""
        self._ledger.spend(self._cohort(t))

    def resumed(self, rounds: int, restarts: int) -> None:
        """So many rounds were run before, and taken up again so many times.

        Each time a round may have been drawn anew whose first result had got out, so each counts as one round more.
        """
        self._restarts = restarts
        for t in range(rounds):
            self.spend(t)

    @property
    def votes(self) -> int:
        """Of the client that voted most often."""
        # No round is begun that the budget has no room for, so a restart after the last one has nothing to add.
        return int(min(self._ledger.most + self._restarts, self._most)) * self._directions

    def summary(self) -> dict[str, Any]:
        """The cost so far, for summary.json."""
        return {
            "epsilon": total_epsilon(self._epsilon, self.votes, self._delta) if self.votes else 0.0,
            "delta": self._delta,
            "epsilon_per_vote": self._epsilon,
            "votes_of_one_client": self.votes,
            "neighbours": "runs that differ in the votes of one client",
        }
