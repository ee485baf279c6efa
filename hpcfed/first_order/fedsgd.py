"""FedSGD: a client sends the gradient of its batch of the round.

Formula  w <- w - lr sum_k n_k / n grad L_k(w)    McMahan et al. 2017; FeedSign, appendix H.3
Legend   L_k: mean loss over client k's batch, the one that a zeroth-order method would probe; n_k: examples in it
Promise  K backward passes for K clients, one gradient in memory; tests/unit/first_order/test_fedsgd.py
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from torch import Tensor

from ..config import Recipe, find_traits
from ..probe.hosted import Hosted
from ..weights import Weights
from .backward import Backward
from .base import DenseMethod
from .exact_sum import Report


class FedSGD:
    """The report of a client is its gradient."""

    def __init__(self, recipe: Recipe, weights: Weights, backward: Backward, hosted: Hosted) -> None:
        self._weights, self._backward, self._hosted = weights, backward, hosted
        self._batch = recipe.clients.batch

    def sizes(self, t: int) -> np.ndarray:
        """n_k of round t's cohort, int64 [K]."""
        return np.minimum(self._hosted.pool.sizes(t), self._batch)

    def factor(self, lr: float) -> float:
        """The weights move by this times the mean report."""
        return -lr

    @contextmanager
    def report(self, client: int, t: int, lr: float) -> Iterator[tuple[float, Report]]:
        """Mean loss of the client's batch, and its gradient while the context lasts."""
        try:
            indices = self._hosted.pool.batch(client, t)
            yield self._backward(self._hosted.batches(client, indices), len(indices)), self._gradient
        finally:
            for p in self._weights.params.values():
                p.grad = None

    def _gradient(self, name: str, low: int, high: int) -> Tensor | None:
        grad = self._weights.params[name].grad  # None: the loss does not depend on this parameter
        return None if grad is None else grad.reshape(-1)[low:high].float()


METHOD = DenseMethod("fedsgd", find_traits("fedsgd"), FedSGD)
