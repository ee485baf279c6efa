"""Sequences of token ids as a batch's inputs: padded to the longest, on one side.

Legend   T: longest sequence of the batch
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .base import Example


def padded(sequences: Sequence[Sequence[int] | np.ndarray], value: int, left: bool) -> Tensor:
    """int64 [rows, T] of `sequences`, filled up with `value` on the left or the right."""
    width = max(len(s) for s in sequences)
    out = np.full((len(sequences), width), value, np.int64)
    for row, sequence in zip(out, sequences, strict=True):
        row[slice(width - len(sequence), None) if left else slice(0, len(sequence))] = sequence
    return torch.from_numpy(out)


def inputs_of(tokenizer: Any, sequences: Sequence[Any], left: bool) -> dict[str, Tensor]:
    """What a model is called with, int64 [rows, T] each."""
    mask = padded([np.ones(len(s), np.int64) for s in sequences], 0, left)
    inputs = {"input_ids": padded(sequences, tokenizer.pad_token_id, left), "attention_mask": mask}
    if left and "position_ids" in tokenizer.model_input_names:
        # Without them some models count the padding as positions, and an example's loss depends on its neighbours.
        inputs["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
    return inputs


def labels_of(examples: Sequence[Example]) -> Tensor:
    """int64 [n]."""
    return torch.tensor([example["label"] for example in examples], dtype=torch.int64)


def ends_of(sequences: Sequence[Any]) -> dict[str, Tensor]:
    """end int64 [rows]: the number of tokens, where they are padded on the right."""
    return {"end": torch.tensor([len(s) for s in sequences], dtype=torch.int64)}
