"""Rows of a task whose answers differ from example to example: candidates, what is right, texts of the prompt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError, did_you_mean
from .answers import AnswerForm, Golds
from .asked import check_metrics, max_length, prompt_of, told
from .base import Examples
from .columns import list_of, lists_of, texts_of
from .labels import Indices, label_of
from .right import ALL, narrowed, right_of
from .rows import Split
from .table import Open, TaskInfo
from .text import values_for

if TYPE_CHECKING:
    from ..config import TaskConfig


class OpenRows:
    """Reads rows of the task `info` for a causal model.  As ClassRows; decoding: how answers are written, or None."""

    def __init__(self, config: TaskConfig, info: TaskInfo, kind: str, tokenizer: Any) -> None:
        assert info.open
        self._config, self._info, self._tokenizer = config, info, tokenizer
        self._open: Open = info.open
        self._label = config.label or info.label
        self._prompt = prompt_of(config, info, kind, tokenizer)
        self._texts = self._prompt.columns if self._prompt.raw else config.text or info.text
        chosen, length = self._open.choices, max_length(config, info, kind, tokenizer)
        names = [self._open.choice_labels] if self._open.choice_labels else []
        self.columns = [*self._texts, *(config.text or info.text if self._shapes else ()), *chosen, *names, self._label]
        self.labels: list[str] = []
        self.notes: list[str] = []
        self._form = AnswerForm(
            tokenizer,
            self._prompt,
            length,
            config.bos,
            self._open.ends,
            self._open.tail,
            self._open.most,
            f"task.choices={list(chosen)}:" if chosen else f"column {self._label!r}:",
        )
        self.forms = self._form.forms(self._open.objective, bool(chosen))
        self.decoding = self._form.decoding() if self._open.form == "generate" else None
        self.metrics = self._open.metrics
        check_metrics(config, self.metrics, texts=self.decoding is not None)
        self.told = told(config, kind, length)
        self._ways = ALL  # in which labels may name candidates

    @property
    def _shapes(self) -> bool:
        return self._open.shape is not None and not self._prompt.raw

    def learn(self, splits: Mapping[str, Split]) -> None:
        """Find out how labels name candidates."""
        if self._open.choices and not self._open.choice_labels:
            self._ways = narrowed(ALL, (row for split in splits.values() for row in self._gold(split)))

    def index(self, split: Split) -> Indices:
        """int64 [n]: 0; -1: the data set does not say what is right."""
        values = split.column(self._label, "task.label", one_type=False)
        nobody = self._info.unlabelled

        def unknown(value: Any) -> bool:
            try:
                return (() if value == [] else label_of(value)) in nobody
            except ValueError:
                return False

        return np.array([-1 if unknown(value) else 0 for value in values], np.int64)

    def _gold(self, split: Split) -> Iterator[tuple[Any, list[str], bool]]:
        """Of each row that has a label: this, the candidates, and whether these are numbers."""
        values, listed = split.column(self._label, "task.label", one_type=False), self._listed(split)
        for row in np.flatnonzero(self.index(split) >= 0).tolist():
            try:
                texts = [text for name, column in listed.items() for text in list_of(column[row], split, row, name)]
            except DataError:
                continue  # told if the row is used
            yield values[row], texts, _are_numbers(listed, row)

    def _listed(self, split: Split) -> dict[str, list[Any]]:
        """The columns that hold candidates."""
        return {name: split.column(name, "task.choices", one_type=False) for name in self._open.choices}

    def examples(self, split: Split, rows: Indices, index: Indices) -> tuple[Examples, Indices]:
        """The examples of some rows, and the rows that they are of."""

        def where(i: int) -> str:
            return split.at(int(rows[i]))

        choices = self._candidates(split, rows)
        right, references = self._right(split, rows, choices)
        values, choices = self._values(split, rows, choices if self._open.choices else [[] for _ in rows])
        if not self._open.choices:
            choices = [[texts[0]] for texts in references]
        else:  # candidates that read alike are right alike
            right = [_alike(numbers, texts) for numbers, texts in zip(right, choices, strict=True)]
            references = [tuple(texts[c] for c in numbers) for numbers, texts in zip(right, choices, strict=True)]
        columns, lost, kept = self._form.encode(values, Golds(choices, right, references), where)
        texts = {"choices": [tuple(choices[k]) for k in kept], "references": [tuple(references[k]) for k in kept]}
        labels = np.array([right[k][0] for k in kept], np.int64)
        return Examples(columns, labels, lost=lost, texts=texts), rows[kept]

    def _candidates(self, split: Split, rows: Indices) -> list[list[str]]:
        """The candidates of each row; where there are none, empty."""
        listed = [lists_of(split, column, rows, "task.choices") for column in self._open.choices]
        choices = [[text for column in columns for text in column] for columns in zip(*listed, strict=True)]
        for k, texts in enumerate(choices):
            if len(texts) < 2:
                raise DataError(
                    f"{split.at(int(rows[k]))}: task.choices={list(self._open.choices)}: only {len(texts)} candidate"
                )
        return choices

    def _right(self, split: Split, rows: Indices, choices: Sequence[Sequence[str]]) -> tuple[Any, Any]:
        """(numbers, texts) of what is right of each row."""
        if not self._open.choices:
            texts = lists_of(split, self._label, rows, "task.label")
            return [(0,)] * len(texts), [tuple(dict.fromkeys(one)) for one in texts]
        values = split.column(self._label, "task.label", one_type=False)
        names = None
        if self._open.choice_labels:
            names = lists_of(split, self._open.choice_labels, rows, "task.choice_labels")
        ways = self._ways if names else narrowed(self._ways, self._gold(split))
        listed, right = self._listed(split), list[tuple[int, ...]]()
        for k, (row, own) in enumerate(zip(rows.tolist(), choices, strict=True)):
            value, what = values[row], f"{split.at(row)}: column {self._label!r}"
            if value is None or value != value or (isinstance(value, str) and not value.strip()):
                raise DataError(f"{what}, the right candidate, is missing")
            if names:
                right.append(self._called(value, own, names[k], what))
            else:
                right.append(right_of(value, own, _are_numbers(listed, row), ways, what))
        return right, [tuple(texts[c] for c in numbers) for texts, numbers in zip(choices, right, strict=True)]

    def _called(self, value: Any, texts: Sequence[str], names: Sequence[str], what: str) -> tuple[int, ...]:
        """Which candidates a label means that says what the data call them."""
        if len(names) != len(texts):
            raise DataError(f"{what}: {len(names)} names in task.choice_labels for {len(texts)} candidates")
        called = [str(one).strip() for one in (value if isinstance(value, list) else [value])]
        for one in called:
            if one not in names:
                raise DataError(f"{what} says {one!r:.60}, no candidate{did_you_mean(one, names)}")
        if not called:
            raise DataError(f"{what} names no candidate: its list is empty")
        return tuple(dict.fromkeys(names.index(one) for one in called))

    def _values(
        self, split: Split, rows: Indices, choices: list[list[str]]
    ) -> tuple[Mapping[str, Any], list[list[str]]]:
        """What the prompt shows of each row, and the candidates as the task writes them."""
        if self._prompt.raw:
            return values_for(self._tokenizer, split, self._prompt.columns, rows), choices
        texts = {}
        for name, own in zip(self._info.text, self._config.text or self._info.text, strict=True):
            first = name in self._info.first
            texts[name] = (
                [one[0] for one in lists_of(split, own, rows, "task.text")]
                if first
                else texts_of(split, own, rows, name in self._info.absent)
            )
        if not self._open.shape:
            return texts, choices
        shaped = []
        for k in range(len(rows)):
            try:
                shaped.append(self._open.shape({name: column[k] for name, column in texts.items()}, choices[k]))
            except ValueError as e:
                raise DataError(f"{split.at(int(rows[k]))}: {e}") from None
        names = list(shaped[0][0]) if shaped else list(texts)
        for name in self._prompt.columns:
            if name not in names:
                raise DataError(f"task.prompt: {{{name}}} is no text column{did_you_mean(name, names)}")
        return {name: [one[name] for one, _ in shaped] for name in names}, [c for _, c in shaped]


def _are_numbers(listed: Mapping[str, Sequence[Any]], row: int) -> bool:
    """Whether the data have a row's candidates as numbers."""
    found = [column[row] for column in listed.values()]
    return all(isinstance(v, int) for value in found for v in (value if isinstance(value, list) else [value]))


def _alike(right: Sequence[int], texts: Sequence[str]) -> tuple[int, ...]:
    """The numbers that are right, the first as it was, with those of the same texts."""
    same = [c for c, text in enumerate(texts) if text in {texts[r] for r in right}]
    return tuple(dict.fromkeys([*right, *same]))
