"""What a task is: examples stored compactly, batches of tensors, and scores that become losses and predictions.

Formula  loss = -log softmax(scores)[label], prediction = argmax scores     cross-entropy over the classes
         scores: a classifier's logits; or, for prompts, the mean log-probability per token of every candidate
         continuation (MeZO, Malladi et al. 2023)
Legend   n: examples of a batch, C: classes, rows: n * rows_per_example sequences or images, example by example
Promise  a batch is a function of its examples alone: no state, no random draw, the same on every rank
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from .metrics import Answered, find_metric
from .rows import Reading
from .tokens import Lost

if TYPE_CHECKING:
    from ..config import TaskConfig

Example = dict[str, Any]

LITTLE = 1 / 8  # padding that costs less than taking the other tokens out and putting them back

#: Kinds of models (model.model_kind): those that see pictures, and those that are asked by a prompt.
IMAGES = "image-classification"
LANGUAGE = ("causal-lm", "masked-lm")


@dataclass(frozen=True, eq=False)
class Ragged:
    """Sequences of different lengths in one array: sequence i is flat[starts[i] : starts[i + 1]].

    flat: int32 [tokens].  starts: int64 [n + 1].
    """

    flat: NDArray[np.int32]
    starts: NDArray[np.int64]

    @staticmethod
    def of(sequences: Sequence[Sequence[int] | NDArray[np.integer[Any]]]) -> Ragged:
        lengths = np.fromiter((len(s) for s in sequences), np.int64, len(sequences))
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        flat = np.empty(int(starts[-1]), np.int32)
        for i, sequence in enumerate(sequences):
            flat[starts[i] : starts[i + 1]] = sequence
        return Ragged(flat, starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, i: int) -> NDArray[np.int32]:
        return self.flat[self.starts[i] : self.starts[i + 1]]


Column = Ragged | NDArray[Any]


class Examples:
    """The examples of one split, ready to be collated: len(), [i] -> Example.

    columns: per feature a Ragged or an array whose dimension 0 is n.  labels: int64 [n] in range(C).
    owners: whom each example belongs to, [n] strings or integers, where the data set says so.
    groups: int64 [n], examples of one group are not divided.  classes: int64 [n], what they are dealt by, if not by
    labels, of class_names.
    lost: what their texts lost on the way to tokens.  texts: per feature n tuples of texts, beside the columns.
    """

    def __init__(
        self,
        columns: Mapping[str, Column],
        labels: NDArray[np.int64],
        owners: NDArray[Any] | None = None,
        lost: Lost | None = None,
        groups: NDArray[np.int64] | None = None,
        classes: NDArray[np.int64] | None = None,
        texts: Mapping[str, Sequence[tuple[str, ...]]] | None = None,
    ) -> None:
        assert all(len(column) == len(labels) for column in columns.values())
        self.columns, self.labels, self.owners = dict(columns), labels, owners
        self.groups, self.classes = groups, classes
        self.class_names: list[str] = []
        self.lost = lost or Lost()
        self.texts = dict(texts or {})

    def largest(self, column: str) -> int:
        """The largest number in a Ragged column; -1 if there is none."""
        values = self.columns.get(column)
        return int(values.flat.max()) if isinstance(values, Ragged) and len(values.flat) else -1

    def __len__(self) -> int:
        return len(self.labels)

    def digest(self) -> str:
        """128-bit hex digest of all examples in order: equal on rows that hold the same data."""
        h = hashlib.blake2b(np.ascontiguousarray(self.labels).data, digest_size=16)
        for name, column in sorted(self.columns.items()):
            h.update(name.encode())
            for part in (column.flat, column.starts) if isinstance(column, Ragged) else (column,):
                h.update(np.ascontiguousarray(part).data)  # .tobytes() would copy all the data
        for name, texts in sorted(self.texts.items()):
            h.update(repr((name, list(texts))).encode())
        return h.hexdigest()

    def __getitem__(self, i: int) -> Example:
        features: Example = {name: column[i] for name, column in self.columns.items()}
        return features | {name: texts[i] for name, texts in self.texts.items()} | {"label": int(self.labels[i])}


@dataclass(frozen=True, eq=False)
class Batch:
    """inputs: what the model is called with, each [rows, ...]; token ids and masks int64, pixel_values float32 (whoever
    calls the model casts floating inputs to the model's dtype).  label: int64 [n].
    extra: what the scores need beside the logits, dimension 0 = rows.
    real: int64 [m], the places among rows * T of the tokens that are no padding, and of little that is; None: of all.
    examples: that it is made of.
    """

    inputs: dict[str, Tensor]
    label: Tensor
    rows_per_example: int = 1
    extra: dict[str, Tensor] = field(default_factory=dict)
    real: Tensor | None = None
    examples: Sequence[Example] = ()

    def without_padding(self) -> Batch:
        """The same batch with `real`, unless padding is less than LITTLE of it; for a batch on the CPU.

        A few places of padding fill it up to one of 16 sizes an octave: for a size that it has not met, oneDNN compiles
        a product anew and keeps it.
        """
        mask = self.inputs.get("attention_mask")
        if mask is None:
            return self
        count = int(mask.sum())
        step = 2 ** max(0, count.bit_length() - 5)
        size = -(-count // step) * step
        if size > (1 - LITTLE) * mask.numel():
            return self
        return replace(self, real=mask.flatten().argsort(descending=True, stable=True)[:size])

    def to(self, device: str) -> Batch:
        """The same batch with all of its tensors on a device; itself if they are there."""
        if device == "cpu":
            return self
        inputs, extra = ({k: v.to(device) for k, v in tensors.items()} for tensors in (self.inputs, self.extra))
        real = None if self.real is None else self.real.to(device)
        return replace(self, inputs=inputs, label=self.label.to(device), extra=extra, real=real)


def cross_entropy(scores: Tensor, batch: Batch) -> Tensor:
    """float32 [n]: of each example over its C scores, [n, C]."""
    return F.cross_entropy(scores, batch.label, reduction="none")


def of_classes(scores: Tensor, batch: Batch, logits: Tensor, labels: Sequence[str]) -> list[Answered]:
    """The class with the highest score, the first of equals; scores [n, C]. A class without a name is its number."""
    names = dict(enumerate(labels))
    return [
        Answered(chosen, names.get(chosen, str(chosen)), (right,), (names.get(right, str(right)),))
        for chosen, right in zip(scores.argmax(dim=-1).tolist(), batch.label.tolist(), strict=True)
    ]


@dataclass(frozen=True, eq=False)
class Form:
    """How one kind of model sees examples: the part of a Task that does not depend on the data.

    collate: examples -> Batch.  scores: (logits, batch) -> float32 [n, C].
    tokens: example -> rows times sequence length (1 for an image), what max_batch_tokens counts.
    head_rows: vocabulary rows whose logits suffice; where given, scores wants logits [rows, positions, len(head_rows)].
    keep_last: how many of the last positions' logits suffice (logits_to_keep; sequences are padded on the left);
    0: all.  Logits of more positions than that are welcome too.
    right: the same padded on the right, for a causal model that does not leave out padding on the left.
    loss: (scores, batch) -> [n].  answered: (scores, batch, logits, labels) -> what the model answers to each example.
    credit: (scores, batch) -> [n] in [0, 1], whose mean over examples is the metric, where that has a name of the
    task's own.
    """

    collate: Callable[[Sequence[Example]], Batch]
    scores: Callable[[Tensor, Batch], Tensor]
    tokens: Callable[[Example], int]
    head_rows: list[int] | None = None
    keep_last: int = 0
    right: Form | None = None
    loss: Callable[[Tensor, Batch], Tensor] = cross_entropy
    answered: Callable[[Tensor, Batch, Tensor, Sequence[str]], list[Answered]] = of_classes
    credit: Callable[[Tensor, Batch], Tensor] | None = None


@dataclass(frozen=True, eq=False)
class Decoding:
    """How a model's own answers are written.

    most: tokens of an answer.  stop: ids of the tokens that end it.  words: ids -> the answer's text.
    prompts: examples -> Batch of the prompts alone, padded on the left.
    """

    most: int
    stop: frozenset[int]
    words: Callable[[Sequence[int]], str]
    prompts: Callable[[Sequence[Example]], Batch]


@dataclass(frozen=True, eq=False)
class Task:
    """A data set in the form that one kind of model sees it in.

    labels: names of the C classes; none where answers differ from example to example.  train: what the clients hold.
    splits: what is evaluated, by name.
    form: how the model sees an example in training; judge: in an evaluation, if otherwise.
    metrics: names of what is reported of a split, the first above all.  decoding: how answers are written that the
    metrics score; None: they score what the logits say.
    objective: the metric that clients train on in place of the form's loss.  tell: errors of it may quote an example.
    device: where batches are wanted, "cpu" or "cuda".
    readings: what was read of each split, the training data's first.  notes: what the user should know of it all.
    overlaps: notes on splits that clients train on, which depend on what these hold: a private run does not print them.
    told: how examples are put to the model, for who uses it afterwards: prompt, verbalizers, text, max_length, bos.
    """

    name: str
    labels: list[str]
    train: Examples
    splits: dict[str, Examples]
    form: Form
    judge: Form | None = None
    metrics: tuple[str, ...] = ("accuracy",)
    decoding: Decoding | None = None
    objective: str | None = None
    tell: bool = True
    device: str = "cpu"
    readings: Mapping[str, Reading] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    overlaps: list[str] = field(default_factory=list)
    told: Mapping[str, Any] = field(default_factory=dict)

    @property
    def metric(self) -> str:
        """The main one."""
        return self.metrics[0]

    @property
    def head_rows(self) -> list[int] | None:
        """See Form."""
        return self.form.head_rows

    @property
    def keep_last(self) -> int:
        """See Form."""
        return self.form.keep_last

    @property
    def counted(self) -> tuple[NDArray[np.int64], list[str]]:
        """What training examples are counted as, int64 [n], and its names: classes, or what they are dealt by."""
        if self.labels:
            return self.train.labels, self.labels
        if self.train.classes is not None:
            return self.train.classes, self.train.class_names
        return np.zeros(len(self.train), np.int64), ["examples"]

    @property
    def judged(self) -> Task:
        """The same task as it is evaluated."""
        return replace(self, form=self.judge or self.form, judge=None, objective=None)

    @property
    def decodes(self) -> bool:
        """Clients train on what the model writes by itself."""
        return self.objective is not None and self.decoding is not None

    def collate(self, examples: Sequence[Example]) -> Batch:
        """The examples as one batch on the device."""
        if self.decodes:
            return self.prompts(examples)
        return self._placed(self.form.collate(examples).without_padding(), examples)

    def prompts(self, examples: Sequence[Example]) -> Batch:
        """The examples' prompts alone, for the model to go on with."""
        assert self.decoding
        return self._placed(self.decoding.prompts(examples), examples)

    def _placed(self, batch: Batch, examples: Sequence[Example]) -> Batch:
        return replace(batch, examples=tuple(examples)).to(self.device)

    def tokens(self, example: Example) -> int:
        """See Form."""
        return self.form.tokens(example)

    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """[n]: the loss of each example; logits as Form.scores wants them."""
        if self.objective is not None:
            return self.unrewarded(self.answered(logits, batch))
        return self.form.loss(self.form.scores(logits, batch), batch)

    def answered(self, logits: Tensor, batch: Batch) -> list[Answered]:
        """What the model answers to each example; logits as Form.scores wants them."""
        return self.form.answered(self.form.scores(logits, batch), batch, logits, self.labels)

    def read(self, ids: Sequence[int], example: Example) -> Answered:
        """What the model has answered in tokens of its own."""
        assert self.decoding
        return Answered(None, self.decoding.words(ids), (), example["references"])

    def unrewarded(self, answers: Sequence[Answered]) -> Tensor:
        """float32 [n]: minus the objective's value of each answer."""
        assert self.objective is not None
        each = find_metric(self.objective, "task.objective", tell=self.tell).each
        assert each is not None
        return torch.tensor([-each(answer) for answer in answers], dtype=torch.float32)

    def credits(self, logits: Tensor, batch: Batch) -> Tensor | None:
        """[n] in [0, 1]: what each example adds to a metric of the task's own; None where it has none."""
        return None if self.form.credit is None else self.form.credit(self.form.scores(logits, batch), batch)


@dataclass(frozen=True)
class OwnTask:
    """A task of the user's own, with data and a loss of its own: what task.name = "FILE.py:NAME" names.

    kinds: what its model may be loaded as (image-classification, sequence-classification, causal-lm, masked-lm).
    load: (section [task], kind, processor) -> Task; processor as model.load_processor gives it. The same on every rank.
    labels: names of the classes, for a classifier's head.
    """

    kinds: tuple[str, ...]
    load: Callable[[TaskConfig, str, Any], Task]
    labels: tuple[str, ...] = ()
