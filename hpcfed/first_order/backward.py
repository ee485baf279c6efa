"""Gradients of one client's mean loss, with weights that are otherwise not differentiated.

Formula  g = grad (1 / n) sum_i L_i(w), summed micro-batch by micro-batch in w's dtype
Promise  requires_grad and grad of every parameter are afterwards what they were; the model stays in eval mode, so no
         dropout and no batch statistics
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ..tasks import Batch, Task
from ..weights import Weights


@contextmanager
def differentiable(weights: Weights) -> Iterator[None]:
    """Inside, autograd sees the trained parameters; at the end they have no gradient."""
    before = {name: p.requires_grad for name, p in weights.params.items()}
    try:
        for p in weights.params.values():
            p.requires_grad_(True)
        with torch.enable_grad():
            yield
    finally:
        for name, p in weights.params.items():
            p.requires_grad_(before[name])
            p.grad = None


class Backward:
    """forward: inputs -> logits.  Call it inside `differentiable`."""

    def __init__(self, forward: Callable[[dict[str, Tensor]], Tensor], task: Task) -> None:
        self._forward, self._task = forward, task

    def __call__(self, batches: Iterable[Batch], examples: int) -> float:
        """Add the gradient of the mean loss over the `examples` in `batches` to every p.grad; returns that loss.

        A loss that is not finite ends it at once: what p.grad holds is then worth nothing.
        """
        total = 0.0
        for batch in batches:
            loss = self._task.losses(self._forward(batch.inputs), batch).sum() / examples
            total += float(loss.detach())
            if not math.isfinite(total):
                return total
            loss.backward()
        return total
