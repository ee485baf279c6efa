"""Metric and mean loss on a split, spread over all rows; the same figures for any number of rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..transport.base import Transport
from . import Examples, Task


@dataclass(frozen=True)
class Score:
    """value: the task's metric in [0, 1].  loss: mean over examples.  examples: how many.  metric: its name."""

    value: float
    loss: float
    examples: int
    metric: str = "accuracy"


@torch.inference_mode()
def evaluate(
    forward: Callable[[dict[str, Tensor]], Tensor],
    task: Task,
    examples: Examples,
    batch: int,
    transport: Transport,
    stop: Callable[[], bool] = lambda: False,
) -> Score | None:
    """Collective, every row once. Traffic: 16 bytes a batch of `batch` examples.

    Batches are cut from the examples in order of length (less padding), whatever the number of rows.
    stop: called after each batch of a row, collective, the same on every row; if it says so the evaluation is given up,
    and the score is None.
    """
    order = np.argsort([task.tokens(examples[i]) for i in range(len(examples))], kind="stable")
    batches = [order[i : i + batch] for i in range(0, len(order), batch)]
    sums = np.zeros((len(batches), 2))  # of a batch: credit and loss, summed
    for first in range(0, len(batches), transport.rows):  # of the batches that all rows take at a time
        if (j := first + transport.row.index) < len(batches):
            part = task.collate([examples[int(i)] for i in batches[j]])
            logits = forward(part.inputs)
            sums[j] = float(task.credits(logits, part).sum()), float(task.losses(logits, part).double().sum())
        if stop():
            return None
    everyone = [np.frombuffer(raw, np.float64).reshape(-1, 2) for raw in transport.all_gather(sums.tobytes())]
    total = sum(everyone[j % transport.rows][j] for j in range(len(batches)))
    return Score(float(total[0]) / len(examples), float(total[1]) / len(examples), len(examples), task.metric)
