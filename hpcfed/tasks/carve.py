"""A dev split, carved off the training data: examples drawn at random, groups never divided."""

from __future__ import annotations

import numpy as np

from ..errors import ConfigError
from ..seeds import derive, shuffled
from .labels import Indices


def carve(groups: Indices | None, n: int, dev: int, seed: int) -> tuple[Indices, Indices]:
    """(training rows, dev rows), both ascending, of n rows: `dev` of them, or whole groups that reach so many.

    groups: int64 [n].  seed: task.few_shot_seed.  Raises ConfigError if nothing would be left to train on.
    """
    of = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    sizes = np.bincount(of)
    order = np.asarray(shuffled(derive(seed, "dev"), len(sizes)))
    many = int(np.searchsorted(np.cumsum(sizes[order]), dev)) + 1
    if many >= len(sizes):
        what = "" if groups is None else f" in {len(sizes)} groups (task.group), which are not divided"
        raise ConfigError(
            f"task.dev={dev}: there are only {n} training examples{what}, and some must be left to train on"
        )
    chosen = np.isin(of, order[:many])
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)
