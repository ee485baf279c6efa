"""What a method without an orbit is: one paper, one file, one line in config/methods.py."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..clients import Pool
from ..config import Recipe, Traits
from ..orbit import Header
from ..probe.hosted import Hosted
from ..weights import Weights
from .backward import Backward
from .exact_sum import Report


class Trainer(Protocol):
    """What one client after the other does in a round, on the row's one copy of the weights."""

    def sizes(self, t: int) -> np.ndarray:
        """Examples behind the report of each client of round t, int64 [K]; the same on every row."""

    def factor(self, lr: float) -> float:
        """The weights move by this times the mean report."""

    def report(self, client: int, t: int, lr: float) -> AbstractContextManager[tuple[float, Report]]:
        """The client's mean loss, and what it reports; the report holds while the context lasts.

        Afterwards the weights are what they were, bit for bit, and have no gradient.
        """


@dataclass(frozen=True)
class DenseMethod:
    """What a recipe names.  name, traits: as of algorithms.Method.

    trainer: (recipe, weights, backward, hosted clients) -> what a client does; ConfigError if a setting does not fit.
    passes: section [algorithm] -> passes over a client's batch in a round, for plans.
    note: what a plan assumes, or nothing.
    """

    name: str
    traits: Traits
    trainer: Callable[[Recipe, Weights, Backward, Hosted], Trainer]
    passes: Callable[[Any], int] = lambda algorithm: 1
    note: str = ""

    def settings(self, algorithm: Any, pool: Pool) -> dict[str, Any]:
        """What the header of the saved weights says beside the common fields: nothing."""
        return {}

    def moves(self, header: Header) -> int:
        """Directions that are drawn in a round: none."""
        return 0
