"""FedAvg: a client trains on its own data and sends how far its weights moved.

Formula  w_k = E epochs of torch.optim steps on L_k from w;  w <- w + sum_k n_k / n (w_k - w)    McMahan et al. 2017
Legend   E: algorithm.local_epochs; L_k: mean loss over a batch of client k's data; n_k: examples it holds
Promise  every client starts from the round's w with a fresh optimiser, and w comes back bit for bit; beside one
         gradient and the optimiser's state it takes one copy of the trained weights; tests/unit/first_order/
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from ..config import Recipe
from ..config.methods import FedAvgConfig, find_traits
from ..probe.hosted import Hosted
from ..seeds import derive, sample
from ..weights import Weights
from ..weights.optim import make_optimizer
from .backward import Backward
from .base import DenseMethod
from .exact_sum import Report


class FedAvg:
    """The report of a client is w_k - w. Raises ConfigError if the optimiser cannot be made."""

    def __init__(self, recipe: Recipe, weights: Weights, backward: Backward, hosted: Hosted) -> None:
        assert isinstance(recipe.algorithm, FedAvgConfig)
        self._weights, self._backward, self._hosted = weights, backward, hosted
        self._algorithm, self._batch, self._run_seed = recipe.algorithm, recipe.clients.batch, recipe.seed
        self._optimizer(recipe.algorithm.lr)

    def sizes(self, t: int) -> np.ndarray:
        """n_k of round t's cohort, int64 [K]."""
        return self._hosted.pool.sizes(t)

    def factor(self, lr: float) -> float:
        """The weights move by this times the mean report; lr went into the clients' steps."""
        return 1.0

    @contextmanager
    def report(self, client: int, t: int, lr: float) -> Iterator[tuple[float, Report]]:
        """Mean loss on the client's way, and how far it came while the context lasts."""
        start = {name: p.detach().clone() for name, p in self._weights.params.items()}

        def moved(name: str, low: int, high: int) -> Tensor:
            there = self._weights.params[name].detach().view(-1)[low:high]
            return there.float() - start[name].view(-1)[low:high].float()

        try:
            yield self._walk(client, t, lr), moved
        finally:
            for name, p in self._weights.params.items():
                p.data.copy_(start[name])
            start.clear()  # the caller still has `moved`: the next client would take a second copy

    def _walk(self, client: int, t: int, lr: float) -> float:
        """Train the weights in place on the client's data; mean loss of its examples, each when it was met.

        Ends at a loss that is not finite. 16-bit weights lose every step below half their spacing.
        """
        optimizer = self._optimizer(lr)
        part = self._hosted.pool.parts[client]
        total = 0.0
        for e in range(self._algorithm.local_epochs):
            order = part[sample(derive(self._run_seed, "epoch", client, t, e), len(part), len(part))]
            for i in range(0, len(order), self._batch):
                indices = order[i : i + self._batch]
                optimizer.zero_grad(set_to_none=True)
                total += self._backward(self._hosted.batches(client, indices), len(indices)) * len(indices)
                if not math.isfinite(total):
                    return total
                optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return total / (len(part) * self._algorithm.local_epochs)

    def _optimizer(self, lr: float) -> torch.optim.Optimizer:
        a = self._algorithm
        return make_optimizer(a.optimizer, list(self._weights.params.values()), lr, a.optimizer_options)


METHOD = DenseMethod(
    "fedavg",
    find_traits("fedavg"),
    FedAvg,
    passes=lambda algorithm: int(algorithm.local_epochs),
    note="a local epoch is taken to be one batch",
)
