"""Dense methods, the first-order references: clients send gradients or weights, 32 bits an element, not votes.

    FirstOrder                    rounds of FedSGD or FedAvg on one row
    save_weights, load_weights    their checkpoint

Such a run has no orbit: nothing shorter than its weights rebuilds them.
"""

from ..weights.checkpoint import load_weights, save_weights
from .round import FirstOrder

__all__ = ["FirstOrder", "load_weights", "save_weights"]
