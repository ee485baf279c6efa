"""A recipe's [task] section made into a Task: which columns, which prompt, which rows.

Promise  every rank that reads the same data gets the same Task, bit for bit
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..config.outside import is_outside, load_outside
from ..errors import ConfigError, DataError, did_you_mean
from .base import Examples, Form, OwnTask, Task
from .digits import digits_arrays
from .images import array_form, encode_images, image_form
from .labels import class_indices, class_names, few_shot, limited
from .load import Split, open_splits
from .prompts import parse_prompt
from .sources import Source, read_sources
from .table import CUSTOM, TASKS, Asked, TaskInfo
from .text import Encode, causal_form, classifier_form, masked_form

if TYPE_CHECKING:
    from ..config import TaskConfig

IMAGES = "image-classification"
_LANGUAGE = ("causal-lm", "masked-lm")


def task_info(config: TaskConfig) -> TaskInfo:
    """The named task with the recipe's columns and splits in place of its own; for "custom" all from the recipe."""
    if is_outside(config.name):
        outside = own_task(config)
        return TaskInfo(None, () if outside.kinds == (IMAGES,) else ("text",), "label", outside.labels)
    if config.name == CUSTOM:
        if config.data is None:
            raise ConfigError('task.name="custom": task.data must say where the data lie (hub name, folder or file)')
        known = TaskInfo(None, tuple(config.text or ()), "label", ())
    elif config.name in TASKS:
        known = TASKS[config.name]
    else:
        raise ConfigError(f"task.name={config.name!r} is not a task{did_you_mean(config.name, [*TASKS, CUSTOM])}")
    if config.text is not None and len(config.text) != len(known.text):
        own = f"{len(known.text)} text columns ({', '.join(known.text)})" if known.text else "images, no text"
        raise ConfigError(f"task.text={config.text}: task {config.name} reads {own}")
    return known


def kind_of(config: TaskConfig, native: str) -> str:
    """What to load the model as: image-classification, sequence-classification, causal-lm or masked-lm.

    native: what the model's folder says it is (model.model_kind), one of the same four.
    Raises ConfigError if the task and the model do not go together.
    """
    if is_outside(config.name):
        return _own_kind(config, native)
    info = task_info(config)
    if not info.text:
        if native != IMAGES:
            cure = "; for text, task.text must name the text columns" if config.name == CUSTOM else ""
            raise ConfigError(f"task.name={config.name!r} is about images, the model is a {native} model{cure}")
        return native
    if native == IMAGES:
        raise ConfigError(f"task.name={config.name!r} is about text, the model is an image classifier")
    if config.form == "head":
        return "sequence-classification"
    if native in _LANGUAGE:
        prompted = config.name != CUSTOM or config.prompt is not None or config.form == "prompt"
        return native if prompted else "sequence-classification"
    if config.form == "prompt":
        raise ConfigError(f'task.form="prompt" needs a language model, the model is a {native} model')
    return native


def own_task(config: TaskConfig) -> OwnTask:
    """The record that task.name = "FILE.py:NAME" names."""
    own = load_outside("task.name", config.name)
    if not isinstance(own, OwnTask):
        raise ConfigError(f"task.name={config.name!r}: a {type(own).__name__} is no hpcfed.tasks.OwnTask")
    return own


def _own_kind(config: TaskConfig, native: str) -> str:
    """The model as it is, if the task takes it so; else a language model with a classifier on top."""
    kinds = own_task(config).kinds
    for kind in (native, "sequence-classification"):
        if kind in kinds and (native == IMAGES) == (kind == IMAGES):
            return kind
    raise ConfigError(f"task.name={config.name!r} is for {' or '.join(kinds)} models, the model is a {native} model")


def load_task(
    config: TaskConfig,
    kind: str,
    processor: Any,
    owners: str | None = None,
    sources: Sequence[Source] | None = None,
) -> Task:
    """Data of `config` encoded for a model of `kind`.

    processor: what model.load_processor gave for it (tokenizer, or what the model says about its images).
    owners: column that says whom an example belongs to, kept in Task.train.owners.
    sources: where the training data are instead, a client each; Task.train is Gathered from them then.
    Raises ConfigError for settings that do not fit, DataError for data that do not.
    """
    if is_outside(config.name):
        return _load_own(config, kind, processor, sources)
    info = task_info(config)
    if config.name == "digits":
        return _load_digits(config, info)
    train_split = config.train_split or "train"
    eval_splits = list(config.eval_splits if config.eval_splits is not None else info.eval_splits)
    data = config.data or info.data
    assert data is not None
    # The revision in the table belongs to the hub name in the table.
    revision = info.revision if config.data in (None, info.data) else None
    with open_splits(
        data, [*([train_split] if sources is None else ()), *eval_splits], train_split, revision
    ) as splits:
        read = {split: _labelled(config, info, opened) for split, opened in splits.items()}
        labels = list(info.labels) or _discovered(config, [read[s] for s in splits])
        encode, form = _form(config, info, kind, processor, len(labels))
        picked = {}
        for split, (opened, values, names) in read.items():
            index = class_indices(values, labels, names, opened.where, info.unlabelled)
            limit, shots = (config.train_limit, config.few_shot) if split == train_split else (config.eval_limit, None)
            rows = _rows(config, index, labels, opened.where, limit, shots, split)
            picked[split] = _examples(
                config, info, opened, rows, index, encode, owners if split == train_split else None
            )

    def client(split: Split) -> Examples:
        opened, values, names = _labelled(config, info, split)
        index = class_indices(values, labels, names, opened.where, info.unlabelled)
        rows = _rows(config, index, labels, opened.where, None, None, train_split)
        return _examples(config, info, opened, rows, index, encode, None)

    train = picked[train_split] if sources is None else read_sources(sources, train_split, client)
    return Task(config.name, labels, train, {split: picked[split] for split in eval_splits}, form)


def _labelled(config: TaskConfig, info: TaskInfo, split: Split) -> tuple[Split, Sequence[Any], list[str] | None]:
    """The split, its labels as they stand there, and what the data set calls its classes (None: it does not say)."""
    if split.classes is not None:
        return split, split.classes, None
    label = config.label or info.label
    values = split.column(label, "task.label")
    return split, values, getattr(split.rows.features[label], "names", None)


def _discovered(config: TaskConfig, read: Sequence[tuple[Split, Sequence[Any], list[str] | None]]) -> list[str]:
    """Names of the classes of a custom task: what the data say, or one a verbaliser."""
    labels = class_names([value for _, values, _ in read for value in values], read[0][2])
    if config.verbalizers is not None and all(name.isdecimal() for name in labels):
        labels = [str(i) for i in range(len(config.verbalizers))]
    if len(labels) < 2:
        raise DataError(f"{read[0][0].where}: the labels name {len(labels)} classes; there must be two at least")
    return labels


def _rows(
    config: TaskConfig,
    index: np.ndarray,
    labels: list[str],
    where: str,
    limit: int | None,
    shots: int | None,
    split: str,
) -> np.ndarray:
    rows = np.flatnonzero(index >= 0)
    if not len(rows):
        raise DataError(f"{where}: no row has a label; task.eval_splits and task.train_split name other splits")
    if shots is not None:
        rows = few_shot(index, labels, shots, config.few_shot_seed, where)
    return limited(rows, limit, config.few_shot_seed, f"limit {split}")


def _examples(
    config: TaskConfig,
    info: TaskInfo,
    split: Split,
    rows: np.ndarray,
    index: np.ndarray,
    encode: Encode,
    owners: str | None,
) -> Examples:
    owned = None if owners is None else np.array([str(v) for v in split.column(owners, "clients.id_column")])[rows]
    if not info.text:
        some = split.rows.select(rows.tolist())
        column = next((name for name, feature in some.features.items() if type(feature).__name__ == "Image"), None)
        if column is None:
            raise DataError(f"{split.where}: no column holds images (columns: {', '.join(some.column_names)})")
        texts: Mapping[str, Any] = {"image": some[column]}
    else:
        texts = {}
        for name, own in zip(info.text, config.text or info.text, strict=True):
            values = split.column(own, "task.text")
            texts[name] = [_text(values[i], i, split.where, own) for i in rows]
    return Examples(encode(texts, lambda i: f"{split.where}, row {rows[i] + 1}"), index[rows], owned)


def _text(value: Any, row: int, where: str, column: str) -> str:
    if value is None:
        raise DataError(f"{where}, row {row + 1}: column {column!r} is missing")
    return str(value).strip()


def _form(config: TaskConfig, info: TaskInfo, kind: str, processor: Any, classes: int) -> tuple[Encode, Form]:
    if kind == IMAGES:
        return lambda rows, where: {"image": encode_images(rows["image"], processor, where)}, image_form(processor)
    length = _max_length(config, info, kind, processor)
    if kind == "sequence-classification":
        return classifier_form(processor, info.text, length)
    own = info.causal if kind == "causal-lm" else info.masked
    asked = Asked(
        config.prompt or (own.prompt if own else ""), tuple(config.verbalizers or (own.verbalizers if own else ()))
    )
    if not asked.prompt or not asked.verbalizers:
        raise ConfigError('task.form="prompt" of a custom task needs task.prompt and task.verbalizers')
    if len(asked.verbalizers) != classes:
        raise ConfigError(
            f"task.verbalizers={list(asked.verbalizers)}: task {config.name} has {classes} classes, a word for each"
        )
    make = causal_form if kind == "causal-lm" else masked_form
    return make(processor, parse_prompt(asked.prompt, info.text), asked.verbalizers, length)


def _max_length(config: TaskConfig, info: TaskInfo, kind: str, tokenizer: Any) -> int:
    """task.max_length, or 256 (128 for single texts of masked models and classifiers), within the model's positions."""
    if config.max_length is None:
        return min(usual_length(info, kind), tokenizer.model_max_length)
    if config.max_length > tokenizer.model_max_length:
        raise ConfigError(
            f"task.max_length={config.max_length}: the model has only {tokenizer.model_max_length} positions"
        )
    return config.max_length


def usual_length(info: TaskInfo, kind: str) -> int:
    """Where examples are cut unless task.max_length says otherwise, in tokens."""
    return 256 if kind == "causal-lm" or len(info.text) > 1 else 128


def _load_own(config: TaskConfig, kind: str, processor: Any, sources: Sequence[Source] | None) -> Task:
    if sources is not None:
        raise ConfigError(
            f"task.name={config.name!r}: a task of your own brings its own data; leave clients.manifest out"
        )
    task = own_task(config).load(config, kind, processor)
    if not isinstance(task, Task):
        raise ConfigError(f"task.name={config.name!r}: its load gives a {type(task).__name__}, not a hpcfed.tasks.Task")
    for split, examples in {"the training data": task.train, **task.splits}.items():
        if not len(examples):
            raise DataError(f"task.name={config.name!r}: {split}: no examples")
    if not task.splits:
        raise DataError(f"task.name={config.name!r}: there is no split to evaluate")
    return task


def _load_digits(config: TaskConfig, info: TaskInfo) -> Task:
    if config.data is not None:
        raise ConfigError(f"task.data={config.data!r}: digits come with the package; task.name must be another task's")
    arrays = digits_arrays()
    train_split = config.train_split or "train"
    eval_splits = list(config.eval_splits if config.eval_splits is not None else info.eval_splits)
    picked = {}
    for split in dict.fromkeys([train_split, *eval_splits]):
        if split not in arrays:
            raise DataError(f"digits has no split {split!r}{did_you_mean(split, arrays)}")
        images, labels = arrays[split]
        limit, shots = (config.train_limit, config.few_shot) if split == train_split else (config.eval_limit, None)
        rows = _rows(config, labels, list(info.labels), f"split {split!r} of digits", limit, shots, split)
        picked[split] = Examples({"pixel_values": images[rows]}, labels[rows])
    return Task(config.name, list(info.labels), picked[train_split], {s: picked[s] for s in eval_splits}, array_form())
