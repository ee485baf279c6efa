"""A recipe's [task] section made into a Task: which columns, which prompt, which rows.

Promise  every rank that reads the same data gets the same Task, bit for bit
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..config.outside import is_outside
from ..errors import ConfigError, DataError, did_you_mean
from .base import IMAGES, LANGUAGE, Column, Examples, Form, Task
from .classes import Head, found_classes, head_note, ordered, words_note, words_of
from .columns import owners_of, texts_of
from .digits import digits_arrays
from .images import array_form, encode_images, image_form
from .labels import Classes, class_indices, few_shot, limited, spell
from .load import open_splits
from .own import load_own, own_kind, own_task
from .prompts import parse_prompt
from .rows import Reading, Split
from .sources import Gathered, Source, read_sources, real_path
from .table import CUSTOM, TASKS, TaskInfo
from .text import Encode, Where, causal_form, classifier_form, masked_form
from .tokens import Lost

if TYPE_CHECKING:
    from ..config import TaskConfig

_ON_TRAINING = "scores on it are scores on training data"


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
        return own_kind(config, native)
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
    if native in LANGUAGE:
        prompted = config.name != CUSTOM or config.prompt is not None or config.form == "prompt"
        return native if prompted else "sequence-classification"
    if config.form == "prompt":
        raise ConfigError(f'task.form="prompt" needs a language model, the model is a {native} model')
    return native


def load_task(
    config: TaskConfig,
    kind: str,
    processor: Any,
    owners: str | None = None,
    sources: Sequence[Source] | None = None,
    head: Head | None = None,
) -> Task:
    """Data of `config` encoded for a model of `kind`.

    processor: what model.load_processor gave for it (tokenizer, or what the model says about its images).
    owners: column that says whom an example belongs to, kept in Task.train.owners.
    sources: where the training data are instead, a client each; Task.train is Gathered from them then.
    head: the classifier's head that the checkpoint has (model.head_labels), whose classes the task's are then.
    Raises ConfigError for settings that do not fit, DataError for data that do not.
    """
    if is_outside(config.name):
        return load_own(config, kind, processor, sources, head)
    info = task_info(config)
    if config.name == "digits":
        return _load_digits(config, info, head)
    train_split = config.train_split or "train"
    eval_splits = list(config.eval_splits if config.eval_splits is not None else info.eval_splits)
    data = config.data or info.data
    assert data is not None
    # The revision in the table belongs to the hub name in the table.
    revision = info.revision if config.data in (None, info.data) else None
    wanted = [*(config.text or info.text), config.label or info.label, *([owners] if owners else [])]
    trained = [train_split] if sources is None else []
    splits = open_splits(data, [*trained, *eval_splits], train_split, wanted, revision)
    read = {split: _labelled(config, info, opened) for split, opened in splits.items()}
    classes, notes = _classes(config, info, [read[split] for split in splits], kind, head)
    labels = classes.labels
    encode, form, asked = _form(config, info, kind, processor, classes)
    notes += words_note(config.verbalizers, classes) if kind in LANGUAGE else _unused(config, kind)

    def pick(split: str, read: _Labelled, limits: _Limits, owners: str | None) -> tuple[Examples, Reading]:
        opened, values, names = read
        index = opened.checked(values, lambda v, where: class_indices(v, classes, where, names, info.unlabelled))
        met[split] = {int(i) for i in np.unique(index) if i >= 0}
        rows = _rows(config, index, labels, opened.where, *limits, split)
        examples = _examples(config, info, opened, rows, index, encode, owners)
        return examples, _reading(opened, index, len(rows), split == train_split)

    picked, readings, met = {}, {}, dict[str, set[int]]()
    for split, one in read.items():
        of_train = split == train_split
        limits = (config.train_limit, config.few_shot) if of_train else (config.eval_limit, None)
        picked[split], readings[split] = pick(split, one, limits, owners if of_train else None)
    _check_met(met, train_split, labels)
    notes += [note for opened in splits.values() for note in opened.notes]
    if sources is None:
        train: Examples = picked[train_split]
        overlaps = _seen_in_training(train_split, picked)
        notes += [f"{train_split} is trained on and evaluated: {_ON_TRAINING}"] if train_split in eval_splits else []
    else:
        train = gathered = read_sources(
            sources,
            train_split,
            wanted,
            lambda split: pick(train_split, _labelled(config, info, split), (None, None), None),
        )
        readings = {train_split: gathered.reading} | readings
        overlaps = _seen_by_clients(gathered, splits, picked)
        notes += gathered.notes
    evaluated = {split: picked[split] for split in eval_splits}
    return Task(
        config.name, labels, train, evaluated, form, readings=readings, notes=notes, overlaps=overlaps, told=asked
    )


def _unused(config: TaskConfig, kind: str) -> list[str]:
    """Notes on settings that a model with a head for classes has no use for."""
    names = ["prompt", "max_length"] if kind == IMAGES else ["prompt"]
    given = [f"task.{name}" for name in names if getattr(config, name) is not None]
    what = "pictures" if kind == IMAGES else "the text itself"
    return [f"{name} is not used: the model has a head for the classes, which is shown {what}" for name in given]


_Limits = tuple[int | None, int | None]  # so many examples, so many of a class
_Labelled = tuple[Split, Sequence[Any], list[str] | None]


def _reading(opened: Split, index: np.ndarray, kept: int, of_train: bool) -> Reading:
    """What became of the rows that were read."""
    unlabelled = int((index < 0).sum())
    left_out = {"no label": unlabelled, _limit(of_train): len(index) - unlabelled - kept}
    files = tuple((part.where, len(part)) for part in opened.parts)
    return Reading(files, kept, {why: n for why, n in (left_out | opened.left_out()).items() if n})


def _limit(of_train: bool) -> str:
    """The settings that leave out examples."""
    return "task.train_limit or task.few_shot" if of_train else "task.eval_limit"


def _check_met(met: Mapping[str, set[int]], train_split: str, labels: Sequence[str]) -> None:
    """DataError if a split has no class that the training data have: they spell their labels in another way."""
    for split, classes in met.items():
        if met.get(train_split) and classes and not classes & met[train_split]:
            ours, theirs = (spell([labels[i] for i in sorted(found)]) for found in (met[train_split], classes))
            raise DataError(f"the labels of {train_split} are {ours}, those of {split} {theirs}: none is in both")


def _seen_in_training(train_split: str, picked: Mapping[str, Examples]) -> list[str]:
    """Notes on splits that are evaluated on what is trained on."""
    train, notes = picked[train_split], []
    for split, examples in picked.items():
        if split != train_split and len(examples) == len(train) and examples.digest() == train.digest():
            notes.append(f"{split} holds the same examples as {train_split}: {_ON_TRAINING}")
    return notes


def _seen_by_clients(train: Gathered, splits: Mapping[str, Split], picked: Mapping[str, Examples]) -> list[str]:
    """Notes on splits that are evaluated on what a client trains on: its file, or a copy of it."""
    notes = []
    for name, split in splits.items():
        files = {part.where: train.files.get("".join(real_path(part.where))) for part in split.parts}
        notes += [
            f"{where} is evaluated as {name} and is the data of {who}: {_ON_TRAINING}"
            for where, who in files.items()
            if who
        ]
        same = [i for i, part in enumerate(train.parts) if len(part) == len(picked[name])]
        if not any(files.values()) and any(train.parts[i].digest() == picked[name].digest() for i in same):
            notes.append(f"{name} holds the same examples as a client: {_ON_TRAINING}")
    return notes


def _labelled(config: TaskConfig, info: TaskInfo, split: Split) -> _Labelled:
    """The split, its labels as they stand there, and what the data set calls its classes (None: it does not say)."""
    if split.folders is not None:
        return split, split.folders, None
    label = config.label or info.label
    return split, split.column(label, "task.label", not info.labels), split.class_names(label)


def _classes(
    config: TaskConfig,
    info: TaskInfo,
    read: Sequence[_Labelled],
    kind: str,
    head: Head | None,
) -> tuple[Classes, list[str]]:
    """The classes of the task, in the order of the head where the model has one; and what the user should know."""
    notes: list[str] = []
    if info.labels:
        classes = Classes.named(info.labels)
    else:
        columns = [(split.where, values) for split, values, _ in read]
        column = "their folders" if read[0][0].folders is not None else f"column {config.label or info.label!r}"
        classes = found_classes(columns, read[0][2], column, config.verbalizers, head, notes)
    if kind in LANGUAGE:
        return classes, notes
    classes = ordered(classes, head, notes)
    return classes, notes + head_note(classes, head, kind == IMAGES or config.name != CUSTOM or config.form == "head")


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
    owned = None if owners is None else owners_of(split, owners)[rows]
    if not info.text:
        pictures = split.pictures(rows.tolist())
        if pictures is None:
            raise DataError(f"{split.where}: no column holds images (columns: {', '.join(split.parts[0].names)})")
        texts: Mapping[str, Any] = {"image": pictures}
    else:
        texts = {
            name: texts_of(split, own, rows) for name, own in zip(info.text, config.text or info.text, strict=True)
        }
    columns, lost = encode(texts, lambda i: split.at(int(rows[i])))
    return Examples(columns, index[rows], owned, lost)


def _form(
    config: TaskConfig, info: TaskInfo, kind: str, processor: Any, classes: Classes
) -> tuple[Encode, Form, dict[str, Any]]:
    """How rows become examples, how a model of `kind` sees these, and what is told of it."""
    if kind == IMAGES:
        return partial(_encode_pictures, processor), image_form(processor), {}
    if config.bos != "auto" and kind != "causal-lm":
        raise ConfigError(f"task.bos={config.bos}: the first token is a causal model's; this is a {kind} model")
    length = _max_length(config, info, kind, processor)
    if kind == "sequence-classification":
        return *classifier_form(processor, info.text, length), told(config, kind, length)
    prompt, own = _asked(config, info, kind)
    words = words_of(config.verbalizers or None, classes, config.name) or own
    if not prompt or not words:
        raise ConfigError('task.form="prompt" of a custom task needs task.prompt and task.verbalizers')
    if kind == "masked-lm":
        encode, form = masked_form(processor, parse_prompt(prompt, info.text), words, length)
    else:
        encode, form = causal_form(processor, parse_prompt(prompt, info.text), words, length, config.bos)
    return encode, form, told(config, kind, length, words)


def _asked(config: TaskConfig, info: TaskInfo, kind: str) -> tuple[str, Sequence[str]]:
    """The prompt, and the task's own words; empty: it has none."""
    own = info.causal if kind == "causal-lm" else info.masked
    return config.prompt or (own.prompt if own else ""), own.verbalizers if own else ()


def told(config: TaskConfig, kind: str, length: int, words: Sequence[str] | None = None) -> dict[str, Any]:
    """How examples are put to a model of `kind`, cut to `length` tokens, as Task.told has it.

    words: of the classes in their order; None: in the order of task.verbalizers.
    """
    info = task_info(config)
    if not info.text or is_outside(config.name):
        return {}
    if kind == "sequence-classification":
        return {"text": list(info.text), "max_length": length}
    prompt, own = _asked(config, info, kind)
    if words is None:
        words = list(config.verbalizers.values()) if isinstance(config.verbalizers, Mapping) else config.verbalizers
    first = {} if config.bos == "auto" else {"bos": config.bos}
    return {"prompt": prompt, "verbalizers": list(words or own), "max_length": length, **first}


def _encode_pictures(processor: Any, rows: Mapping[str, Any], where: Where) -> tuple[dict[str, Column], Lost]:
    return {"image": encode_images(rows["image"], processor, where)}, Lost()


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


def _load_digits(config: TaskConfig, info: TaskInfo, head: Head | None) -> Task:
    if config.data is not None:
        raise ConfigError(f"task.data={config.data!r}: digits come with the package; task.name must be another task's")
    arrays, notes = digits_arrays(), list[str]()
    classes = ordered(Classes.named(info.labels), head, notes)
    place = np.array([classes.numbers[digit] for digit in range(len(info.labels))])
    train_split = config.train_split or "train"
    eval_splits = list(config.eval_splits if config.eval_splits is not None else info.eval_splits)
    picked, readings = {}, {}
    for split in dict.fromkeys([train_split, *eval_splits]):
        if split not in arrays:
            raise DataError(f"digits has no split {split!r}{did_you_mean(split, arrays)}")
        images, labels = arrays[split][0], place[arrays[split][1]]
        limit, shots = (config.train_limit, config.few_shot) if split == train_split else (config.eval_limit, None)
        rows = _rows(config, labels, classes.labels, f"split {split!r} of digits", limit, shots, split)
        picked[split] = Examples({"pixel_values": images[rows]}, labels[rows])
        left_out = {_limit(split == train_split): n} if (n := len(labels) - len(rows)) else {}
        readings[split] = Reading((("the package's digits", len(labels)),), len(rows), left_out)
    notes += head_note(classes, head, True)
    splits = {s: picked[s] for s in eval_splits}
    return Task(config.name, classes.labels, picked[train_split], splits, array_form(), readings=readings, notes=notes)
