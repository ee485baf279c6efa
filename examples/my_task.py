"""A task of your own: data that you make or read yourself, and a loss of your own.

    hpcfed train digits --set task.name=examples/my_task.py:TASK --set rounds=1000

Digits upside down (scikit-learn's, 8 x 8 pixels), with the multi-class hinge loss (Crammer and Singer 2001):
    loss = max(0, 1 + max over the wrong classes of their score - score of the right class)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from hpcfed.config import TaskConfig
from hpcfed.tasks import Batch, Example, Examples, Form, OwnTask, Task


def load(config: TaskConfig, kind: str, processor: Any) -> Task:
    """The data, the same on every rank.  kind: what the model was loaded as.  processor: what it wants of images."""
    data = load_digits()
    images = (data.images[:, ::-1, ::-1] / 8 - 1).astype(np.float32)[:, None]
    train, test = (
        Examples({"pixels": np.ascontiguousarray(images[part])}, data.target[part].astype(np.int64))
        for part in (slice(0, 1200), slice(1200, None))
    )
    form = Form(collate, lambda logits, batch: logits.float(), tokens=lambda example: 1, loss=hinge)
    return Task("upside-down", [str(digit) for digit in range(10)], train, {"test": test}, form)


def collate(examples: Sequence[Example]) -> Batch:
    """What the model is called with, and the right classes."""
    pixels = torch.from_numpy(np.stack([example["pixels"] for example in examples]))
    return Batch({"pixel_values": pixels}, torch.tensor([example["label"] for example in examples]))


def hinge(scores: Tensor, batch: Batch) -> Tensor:
    """float32 [n] of scores [n, C]."""
    right = scores.gather(1, batch.label[:, None])
    wrong = scores.scatter(1, batch.label[:, None], -torch.inf).amax(1, keepdim=True)
    return (1 + wrong - right).clamp(min=0).squeeze(1)


TASK = OwnTask(("image-classification",), load, labels=tuple("0123456789"))
