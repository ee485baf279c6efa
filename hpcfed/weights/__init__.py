"""The weights of one copy of the model: weights.py says which, mover.py moves them, checkpoint.py saves them.

optim.py is torch.optim by name, for movers and clients that take an optimiser.
"""

from __future__ import annotations

from .mover import Mover, apply_, make_mover
from .weights import Copy, Weights, memory

__all__ = ["Copy", "Mover", "Weights", "apply_", "make_mover", "memory"]
