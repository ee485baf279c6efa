"""What a round is measured against, on CPUs and GPUs alike: round.py and gpu_round.py time these two.

    two_forwards   what a two-point probe cannot do without
    in_place       MeZO as published (Malladi et al. 2023): w += mu z, loss, w -= 2 mu z, loss, w += mu z, w -= lr z,
                   with z drawn anew from its seed each of the four times

Legend  loss: float of the mean loss of one batch; it runs the model once and waits for the result
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

MU, LR, PAD = 1e-3, 1e-6, 1
#: 16 quantiles of the words a sentence in SST-2's 6,920 training sentences, and 5 tokens of start and prompt each.
SST2 = [words + 5 for words in (4, 7, 9, 11, 13, 15, 16, 18, 19, 21, 23, 24, 27, 29, 32, 38)]


def make_inputs(lengths: Sequence[int], words: int = 50_000) -> dict[str, Tensor]:
    """input_ids and attention_mask, int64 [B, T], of B random sequences, padded on the left to the longest."""
    longest = max(lengths)
    ids = torch.randint(5, words, (len(lengths), longest), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(longest) >= longest - torch.tensor(lengths)[:, None]).long()
    return {"input_ids": torch.where(mask == 1, ids, PAD), "attention_mask": mask}


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
