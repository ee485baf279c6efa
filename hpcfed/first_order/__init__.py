"""Dense methods: clients send gradients or weights, 32 bits an element, and nothing shorter rebuilds the model.

base.py is what such a method is, round.py a round of it; fedsgd.py and fedavg.py are one paper each.
"""

from __future__ import annotations

from .base import DenseMethod, Trainer
from .round import FirstOrder

__all__ = ["DenseMethod", "FirstOrder", "Trainer"]
