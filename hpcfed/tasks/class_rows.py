"""Rows of a task that has classes: their labels, and how their texts or pictures become examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, DataError
from .asked import asked, check_metrics, max_length, prompt_of, told
from .base import IMAGES, LANGUAGE, Column, Decoding, Examples, Form
from .classes import Head, found_classes, head_note, ordered, words_note, words_of
from .columns import texts_of
from .images import encode_images, image_form
from .labels import Classes, Indices, class_indices
from .rows import Split
from .table import CUSTOM, TaskInfo
from .text import Encode, Where, causal_form, classifier_form, masked_form, values_for
from .tokens import Lost

if TYPE_CHECKING:
    from ..config import TaskConfig


class ClassRows:
    """Reads rows of the task `info` for a model of `kind`.  head: the classifier's that the checkpoint has.

    columns: that it asks for.  labels: of the classes.  notes: what the user should know.  forms: in training and in an
    evaluation.  told: how examples are put to the model.  The last four are known after `learn`.
    """

    decoding: Decoding | None = None

    def __init__(self, config: TaskConfig, info: TaskInfo, kind: str, processor: Any, head: Head | None) -> None:
        self._config, self._info, self._kind, self._processor, self._head = config, info, kind, processor, head
        self._texts: Sequence[str] = config.text or info.text
        if kind in LANGUAGE:
            self._prompt = prompt_of(config, info, kind, processor)
            if self._prompt.raw:  # it names columns as the data do
                self._texts = self._prompt.columns
        self.columns = [*self._texts, config.label or info.label]
        self.metrics = tuple(config.metrics or ("accuracy",))
        check_metrics(config, self.metrics, texts=False)
        self.labels: list[str] = []
        self.notes: list[str] = []

    def learn(self, splits: Mapping[str, Split]) -> None:
        """Find out which classes there are, and how the model is asked for them."""
        labelled = [(split, *_labels(self._config, self._info, split)) for split in splits.values()]
        self._classes, self.notes = self._found(labelled)
        self.labels = self._classes.labels
        self._encode, self.forms, self.told = self._form(next(iter(splits.values())))
        kind, config = self._kind, self._config
        self.notes += words_note(config.verbalizers, self._classes) if kind in LANGUAGE else _unused(config, kind)

    def index(self, split: Split) -> Indices:
        """int64 [n]: the class of each row; -1: nobody knows."""
        values, names = _labels(self._config, self._info, split)
        nobody = self._info.unlabelled
        return split.checked(values, lambda v, where: class_indices(v, self._classes, where, names, nobody))

    def examples(self, split: Split, rows: Indices, index: Indices) -> tuple[Examples, Indices]:
        """The examples of some rows, and the rows that they are of."""
        if not self._info.text:
            pictures = split.pictures(rows.tolist())
            if pictures is None:
                raise DataError(f"{split.where}: no column holds images (columns: {', '.join(split.parts[0].names)})")
            values: Mapping[str, Any] = {"image": pictures}
        elif self._kind in LANGUAGE and self._prompt.raw:
            values = values_for(self._processor, split, self._texts, rows)
        else:
            pairs = zip(self._info.text, self._texts, strict=True)
            values = {name: texts_of(split, own, rows) for name, own in pairs}
        columns, lost = self._encode(values, lambda i: split.at(int(rows[i])))
        return Examples(columns, index[rows], lost=lost), rows

    def _found(self, read: Sequence[_Labelled]) -> tuple[Classes, list[str]]:
        """The classes, in the order of the head where the model has one; and what the user should know of them."""
        config, info, kind, head = self._config, self._info, self._kind, self._head
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
        own = kind == IMAGES or config.name != CUSTOM or config.form == "head"
        return classes, notes + head_note(classes, head, own)

    def _form(self, split: Split) -> tuple[Encode, tuple[Form, Form], dict[str, Any]]:
        """How rows become examples, how the model sees these, and what is told of it.  split: one of the task's."""
        config, info, kind, processor = self._config, self._info, self._kind, self._processor
        if kind == IMAGES:
            form = image_form(processor)
            return partial(_encode_pictures, processor), (form, form), {}
        if config.bos != "auto" and kind != "causal-lm":
            raise ConfigError(f"task.bos={config.bos}: the first token is a causal model's; this is a {kind} model")
        length = max_length(config, info, kind, processor)
        if kind == "sequence-classification":
            encode, form = classifier_form(processor, info.text, length)
            return encode, (form, form), told(config, kind, length)
        words = words_of(config.verbalizers or None, self._classes, config.name) or asked(config, info, kind)[1]
        if not words:
            raise ConfigError('task.form="prompt" of a custom task needs task.prompt and task.verbalizers')
        if kind == "masked-lm":
            encode, form = masked_form(processor, self._prompt, words, length)
        else:
            sample = None
            if self._prompt.raw:
                of_one = values_for(processor, split, self._texts, [0])
                sample = {name: values[0] for name, values in of_one.items()}
            encode, form = causal_form(processor, self._prompt, words, length, config.bos, sample)
        return encode, (form, form), told(config, kind, length, words)


_Labelled = tuple[Split, Sequence[Any], list[str] | None]


def _labels(config: TaskConfig, info: TaskInfo, split: Split) -> tuple[Sequence[Any], list[str] | None]:
    """The labels as they stand there, and what the data set calls its classes (None: it does not say)."""
    if split.folders is not None:
        return split.folders, None
    label = config.label or info.label
    return split.column(label, "task.label", not info.labels), split.class_names(label)


def _encode_pictures(processor: Any, rows: Mapping[str, Any], where: Where) -> tuple[dict[str, Column], Lost]:
    return {"image": encode_images(rows["image"], processor, where)}, Lost()


def _unused(config: TaskConfig, kind: str) -> list[str]:
    """Notes on settings that a model with a head for classes has no use for."""
    names = ["prompt", "max_length"] if kind == IMAGES else ["prompt"]
    given = [f"task.{name}" for name in names if getattr(config, name) is not None]
    given += ["task.chat"] if config.chat else []
    what = "pictures" if kind == IMAGES else "the text itself"
    return [f"{name} is not used: the model has a head for the classes, which is shown {what}" for name in given]
