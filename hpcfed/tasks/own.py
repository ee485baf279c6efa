"""A task in a file of the user's own, task.name = "FILE.py:NAME": the record there, its models, and what it loads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..config.outside import load_outside
from ..errors import ConfigError, DataError
from .base import IMAGES, LANGUAGE, OwnTask, Task
from .classes import Head, head_note, ordered
from .labels import Classes, spell
from .sources import Source

if TYPE_CHECKING:
    from ..config import TaskConfig


def own_task(config: TaskConfig) -> OwnTask:
    """The record that task.name = "FILE.py:NAME" names."""
    own = load_outside("task.name", config.name)
    if not isinstance(own, OwnTask):
        raise ConfigError(f"task.name={config.name!r}: a {type(own).__name__} is no hpcfed.tasks.OwnTask")
    return own


def own_kind(config: TaskConfig, native: str) -> str:
    """The model as it is, if the task takes it so; else a language model with a classifier on top."""
    kinds = own_task(config).kinds
    for kind in (native, "sequence-classification"):
        if kind in kinds and (native == IMAGES) == (kind == IMAGES):
            return kind
    raise ConfigError(f"task.name={config.name!r} is for {' or '.join(kinds)} models, the model is a {native} model")


def refuse_taken(config: TaskConfig, what: str, settings: Sequence[str]) -> None:
    """ConfigError if splits are to be taken from the training data of a task whose rows hpcfed does not read."""
    for setting in settings:
        if (value := getattr(config, setting)) is not None:
            raise ConfigError(f"task.{setting}={value!r}: the data of {what} are not read from rows; leave it out")


def load_own(
    config: TaskConfig, kind: str, processor: Any, sources: Sequence[Source] | None, head: Head | None
) -> Task:
    """What the task in the user's own file loads, checked: examples everywhere, and the model's order of classes."""
    if sources is not None:
        raise ConfigError(
            f"task.name={config.name!r}: a task of your own brings its own data; leave clients.manifest out"
        )
    refuse_taken(config, f"task.name={config.name!r}", ("dev", "held_out", "group"))
    for setting in ("objective", "metrics", "choices", "chat"):
        if (value := getattr(config, setting)) != type(config).model_fields[setting].default:
            raise ConfigError(
                f"task.{setting}={value!r}: a task of your own has its own loss and metrics; leave it out"
            )
    task = own_task(config).load(config, kind, processor)
    if not isinstance(task, Task):
        raise ConfigError(f"task.name={config.name!r}: its load gives a {type(task).__name__}, not a hpcfed.tasks.Task")
    for split, examples in {"the training data": task.train, **task.splits}.items():
        if not len(examples):
            raise DataError(f"task.name={config.name!r}: {split}: no examples")
    if not task.splits and config.eval_splits != []:
        raise DataError(
            f"task.name={config.name!r}: there is no split to evaluate; task.eval_splits=[] says that none is wanted"
        )
    if kind in LANGUAGE or not task.labels:
        return task
    notes = [*task.notes, *head_note(Classes.named(task.labels), head, True)]
    classes = ordered(Classes.named(task.labels), head, notes)
    if any(number != i for number, i in classes.numbers.items()):
        raise ConfigError(
            f"task.name={config.name!r}: its classes are {spell(task.labels)}, the model's {spell(classes.labels)}; "
            "number them as the model does"
        )
    return replace(task, labels=classes.labels, notes=notes)
