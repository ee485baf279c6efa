"""What a round is measured against, on CPUs and GPUs alike: round.py and gpu_round.py time these two.

    two_forwards   what a two-point probe cannot do without
    in_place       MeZO as published (Malladi et al. 2023): w += mu z, loss, w -= 2 mu z, loss, w += mu z, w -= lr z,
                   with z drawn anew from its seed each of the four times

Legend  loss: float of the mean loss of one batch; it runs the model once and waits for the result
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

MU, LR = 1e-3, 1e-6


@torch.inference_mode()
def two_forwards(loss: Callable[[], float]) -> None:
    loss()
    loss()


@torch.inference_mode()
def in_place(model: nn.Module, loss: Callable[[], float], seed: int) -> None:
    """Moves every parameter of the model by lr z, and by what the perturbations leave behind in 16 bits."""
    params = list(model.parameters())

    def shift(scale: float) -> None:
        torch.manual_seed(seed)
        for p in params:
            p.add_(torch.normal(mean=0.0, std=1.0, size=p.shape, dtype=p.dtype, device=p.device), alpha=scale)

    shift(MU)
    upper = loss()
    shift(-2 * MU)
    lower = loss()
    shift(MU)
    shift(-LR * (1 if upper > lower else -1))
