"""Slopes of clients' losses along random directions.

Formula  p = (L(w + mu z) - L(w - mu z)) / (2 mu)             SPSA, Spall 1992; FeedSign, Definition 1 (eq. 1)
Legend   w: parameters, z: direction, L: mean loss over one client's batch, p: loss per unit of w
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .dual import Probe


def slopes(
    probe: Probe,
    losses: Callable[[Tensor, Any], Tensor],
    batches: Sequence[tuple[Any, np.ndarray]],
    clients: int,
    seeds: Sequence[int],
    mu: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Slope of every client's mean loss along every direction, float64 [clients, q]; mean losses, float64 [clients].

    losses: (logits, batch) -> float32 [n], a loss an example.  batches: (batch, slot int64 [n]): example i belongs to
    client slot[i]; a client's examples may lie in several batches.  seeds: q directions.
    Not finite where a loss is not. The mean loss is that of both sides and all directions, so L(w) up to O(mu^2).
    """
    rise, level = np.zeros((clients, len(seeds))), np.zeros(clients)
    counts = np.sum([np.bincount(slot, minlength=clients) for _, slot in batches], axis=0)
    queued: list[tuple[np.ndarray, int, Tensor]] = []
    for batch, slot in batches:
        for j, seed in enumerate(seeds):
            sides = torch.stack([losses(x, batch) for x in probe.logits(batch.inputs, seed, mu, batch.real)])
            queued.append((slot, j, sides.double()))
    for slot, j, sides in queued:  # a GPU is waited for here, once, and not before all its work is queued
        plus, minus = sides.cpu().numpy()
        rise[:, j] += np.bincount(slot, weights=plus - minus, minlength=clients)
        level += np.bincount(slot, weights=plus + minus, minlength=clients)
    found = np.concatenate([rise / (2 * mu * counts[:, None]), level[:, None] / (2 * len(seeds) * counts[:, None])], 1)
    probe.weights.row.share(found)  # shards walk by them: a last bit that differs would drive their weights apart
    return found[:, :-1], found[:, -1]
