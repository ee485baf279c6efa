"""Tasks: from a recipe's [task] section to examples, batches and losses.

    kind = kind_of(config.task, native_kind)         what the model is loaded as; native_kind says what it is by nature
    task = load_task(config.task, kind, processor)   the data, encoded for that kind of model

Formula  table.py has every named task's columns, prompt and verbalisers; text.py and images.py the losses.
"""

from __future__ import annotations

from .asked import kind_of, task_info, told, usual_length
from .base import Batch, Column, Decoding, Example, Examples, Form, OwnTask, Ragged, Task
from .build import More, load_task
from .table import CUSTOM, TASKS, Asked, Open, TaskInfo

__all__ = [
    "CUSTOM",
    "TASKS",
    "Asked",
    "Batch",
    "Column",
    "Decoding",
    "Example",
    "Examples",
    "Form",
    "More",
    "Open",
    "OwnTask",
    "Ragged",
    "Task",
    "TaskInfo",
    "kind_of",
    "load_task",
    "task_info",
    "told",
    "usual_length",
]
