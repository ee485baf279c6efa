"""apply_: the only function that moves weights. Training, resume, late join and replay all come here.

Formula  w <- w - c z(s), one step after the other, each rounded to w's dtype    FeedSign, Definition 2 (eq. 3)
Legend   c: what the tally decided times lr, float32
Promise  many updates in one call give the bits of as many calls with one update; tests/unit/test_update.py
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .messages import Update
from .noise import move_
from .weights import Weights


def apply_(weights: Weights, updates: Sequence[Update], distribution: str, rounding: str) -> None:
    """Move all trained parameters through `updates`, in order, in one pass over the weights."""
    if not updates:
        return
    seeds = np.concatenate([u.seeds for u in updates])
    coefficients = np.concatenate([u.coefficients for u in updates])
    for name, p in weights.params.items():
        move_(p.data, seeds, coefficients, weights.pieces[name], distribution, rounding)
