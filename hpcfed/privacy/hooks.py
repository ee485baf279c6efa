"""What a run does for its clients' privacy, as hooks of a round; `Privacy` itself does nothing.

    on_votes     what a client sends instead of its vote                      local: flipped by randomised response
    count        how votes become the tally that all rows see                 central: drawn by row 0, which sees them
    room_for     may the round be run at all                                  the budget
    may_tell     may anything else be told that depends on a client's data    no, where there is a mechanism

Promise  of a client's votes nothing leaves its row but what on_votes gave, and nothing leaves row 0 but what count gave
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from ..config import PrivacyConfig
from ..messages import Ballots, Tally
from ..transport.base import Transport
from .budget import Budget
from .mechanism import majority, respond


class Privacy:
    """No mechanism: votes are what they are.

    may_tell: losses, times, abstentions and numbers of examples may be logged.  tally_known: rows see the true tally.
    """

    may_tell = True
    tally_known = True

    def __init__(
        self, config: PrivacyConfig, directions: int, clients: int, cohort: Callable[[int], Sequence[int]]
    ) -> None:
        """As make_privacy."""

    def on_votes(self, votes: np.ndarray) -> np.ndarray:
        """int8 [m, q], votes of the m clients of this row -> what they send."""
        return votes

    def count(
        self, transport: Transport, ballots: Ballots, voters: int, hosted: Sequence[int], form: Literal["sum", "bits"],
        stop: bool,
    ) -> Tally:  # fmt: skip
        """Collective over the client axis, as transport.tally."""
        return transport.tally(ballots, voters, hosted, form, stop)

    def extra_entries(self, directions: int) -> int:
        """What `count` sends beside a tally's entries, in a round of so many directions."""
        return 0

    def room_for(self, t: int) -> bool:
        """Whether the clients of round t may vote."""
        return True

    def spend(self, t: int) -> None:
        """The clients of round t have voted."""

    def resumed(self, rounds: int, restarts: int) -> None:
        """So many rounds were run before, and taken up again so many times."""

    def summary(self) -> dict[str, Any] | None:
        """What the run promises its clients, for summary.json; None: nothing."""
        return None


class _Private(Privacy):
    """What both mechanisms have: a budget, and silence about everything else."""

    may_tell = False
    mechanism: str
    trusted: str

    def __init__(
        self, config: PrivacyConfig, directions: int, clients: int, cohort: Callable[[int], Sequence[int]]
    ) -> None:
        super().__init__(config, directions, clients, cohort)
        assert config.epsilon is not None
        self._epsilon, self._budget = config.epsilon, Budget(config, directions, clients, cohort)

    def room_for(self, t: int) -> bool:
        """Whether the budget has room for it."""
        return self._budget.room_for(t)

    def spend(self, t: int) -> None:
        """It is spent."""
        self._budget.spend(t)

    def resumed(self, rounds: int, restarts: int) -> None:
        """The rounds are spent, and one more for each restart."""
        self._budget.resumed(rounds, restarts)

    def summary(self) -> dict[str, Any]:
        """The promise, its cost so far, and who must be trusted."""
        return {"mechanism": self.mechanism, **self._budget.summary(), "trusted": self.trusted}


class LocalPrivacy(_Private):
    """Every client flips its own vote at random."""

    mechanism, trusted = "local", "nobody: every client draws its own noise"

    def on_votes(self, votes: np.ndarray) -> np.ndarray:
        """Randomised response."""
        return respond(votes, self._epsilon)


class CentralPrivacy(_Private):
    """Row 0, the only one that sees the tally, draws the majority."""

    tally_known = False
    mechanism, trusted = "central", "row 0, which alone sees the tally and draws the majority"

    def count(
        self, transport: Transport, ballots: Ballots, voters: int, hosted: Sequence[int], form: Literal["sum", "bits"],
        stop: bool,
    ) -> Tally:  # fmt: skip
        """Collective over the client axis, as transport.private_tally."""
        return transport.private_tally(ballots, voters, hosted, lambda sums: majority(sums, self._epsilon), stop)

    def extra_entries(self, directions: int) -> int:
        """Row 0's answer: the signs, a state, and who asks to stop."""
        return directions + 2


MECHANISMS: dict[str, type[Privacy]] = {"none": Privacy, "local": LocalPrivacy, "central": CentralPrivacy}


def make_privacy(
    config: PrivacyConfig, directions: int, clients: int, cohort: Callable[[int], Sequence[int]]
) -> Privacy:
    """The hooks that a recipe asks for.  ConfigError if its budget has no room for one round.

    directions: votes of a client in a round.  cohort: round -> ids of the clients, of so many, that vote in it.
    """
    return MECHANISMS[config.mechanism](config, directions, clients, cohort)
