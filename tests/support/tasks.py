"""From a recipe's two sections to a task and its model, as the program does it, and the plain evaluation of a split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hpcfed.config import ModelConfig, TaskConfig
from hpcfed.model import load_model, load_processor, model_kind
from hpcfed.tasks import Batch, Task, kind_of, load_task


def open_task(folder: Path, owners: str | None = None, pad_token: str | None = None, **settings: Any) -> Task:
    config, model = TaskConfig(**settings), ModelConfig(name=str(folder), pad_token=pad_token)
    kind = kind_of(config, model_kind(model))
    return load_task(config, kind, load_processor(model, kind), owners)


def open_model(folder: Path, task: Task, **settings: Any) -> nn.Module:
    model = ModelConfig(name=str(folder))
    return load_model(model, kind_of(TaskConfig(name=task.name, **settings), model_kind(model)), task.labels)


def logits_of(model: nn.Module, task: Task, batch: Batch) -> Tensor:
    """All logits, only the task's vocabulary columns of them."""
    with torch.no_grad():
        logits = model(**batch.inputs).logits
    return logits if task.head_rows is None else logits[..., task.head_rows]
