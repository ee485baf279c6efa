"""From a recipe's two sections to a task and its model, as the program does it; six sentences for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hpcfed.config import ModelConfig, TaskConfig
from hpcfed.model import head_labels, load_model, load_processor, model_kind
from hpcfed.tasks import Batch, Examples, More, Task, kind_of, load_task
from tests.support.small import sentences

SENTENCES = sentences(6, seed=3)


def same_examples(a: Examples, b: Examples) -> bool:
    """Whether two splits hold the same encoded texts."""
    return len(a) == len(b) and all(np.array_equal(a[i]["input_ids"], b[i]["input_ids"]) for i in range(len(a)))


def open_task(
    folder: Path, owners: str | None = None, pad_token: str | None = None, classes: str | None = None, **settings: Any
) -> Task:
    config, model = TaskConfig(**settings), ModelConfig(name=str(folder), pad_token=pad_token)
    kind = kind_of(config, model_kind(model))
    return load_task(config, kind, load_processor(model, kind), More(owners, classes), head=head_labels(model, kind))


def open_model(folder: Path, task: Task, **settings: Any) -> nn.Module:
    model = ModelConfig(name=str(folder))
    return load_model(model, kind_of(TaskConfig(name=task.name, **settings), model_kind(model)), task.labels)


def logits_of(model: nn.Module, task: Task, batch: Batch) -> Tensor:
    """All logits, only the task's vocabulary columns of them."""
    with torch.no_grad():
        logits = model(**batch.inputs).logits
    return logits if task.head_rows is None else logits[..., task.head_rows]
