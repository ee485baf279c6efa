"""Rows of a task whose answers differ from example to example: candidates, what is right, texts of the prompt."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError, did_you_mean
from .answers import AnswerForm, Golds
from .asked import check_metrics, max_length, prompt_of, told
from .base import Examples
from .columns import lists_of, texts_of
from .labels import Indices, label_of
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

    @property
    def _shapes(self) -> bool:
        return self._open.shape is not None and not self._prompt.raw

    def learn(self, splits: Mapping[str, Split]) -> None:
        """Nothing is found out from the data."""

    def index(self, split: Split) -> Indices:
        """int64 [n]: 0; -1: the data set does not say what is right."""
        values = split.column(self._label, "task.label", one_type=False)
        nobody = set(self._info.unlabelled)
        return np.array([-1 if isinstance(value, int) and value in nobody else 0 for value in values], np.int64)

    def examples(self, split: Split, rows: Indices, index: Indices) -> tuple[Examples, Indices]:
        """The examples of some rows, and the rows that they are of."""

        def where(i: int) -> str:
            return split.at(int(rows[i]))

        choices = self._candidates(split, rows)
        right, references = self._right(split, rows, choices)
        values, choices = self._values(split, rows, choices if self._open.choices else [[] for _ in rows])
        if not self._open.choices:
            choices = [[texts[0]] for texts in references]
        elif self._open.shape:
            references = [tuple(choices[k][c] for c in right[k]) for k in range(len(rows))]
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
            if len(set(texts)) < len(texts):
                twice = next(text for text in texts if texts.count(text) > 1)
                raise DataError(
                    f"{split.at(int(rows[k]))}: task.choices={list(self._open.choices)}: {twice!r:.60} is there twice"
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
        right = [
            self._numbers(values[row], texts, names[k] if names else None, split.at(int(row)))
            for k, (row, texts) in enumerate(zip(rows, choices, strict=True))
        ]
        return right, [tuple(texts[c] for c in numbers) for texts, numbers in zip(choices, right, strict=True)]

    def _numbers(self, value: Any, texts: Sequence[str], names: Sequence[str] | None, where: str) -> tuple[int, ...]:
        """Which candidates a label means: by what the data call them, by text, number from 0, or letter from A."""
        if isinstance(value, list):
            found = [self._numbers(one, texts, names, where)[0] for one in dict.fromkeys(value)]
            if not found:
                raise DataError(f"{where}: column {self._label!r} names no candidate: its list is empty")
            return tuple(dict.fromkeys(found))
        try:
            said = label_of(value)
        except ValueError:
            said = None
        if said is None:
            raise DataError(f"{where}: column {self._label!r}, the right candidate, is missing")
        if names is not None:
            if len(names) != len(texts):
                raise DataError(f"{where}: {len(names)} names in task.choice_labels for {len(texts)} candidates")
            if str(value).strip() in names:
                return (names.index(str(value).strip()),)
            raise DataError(
                f"{where}: column {self._label!r} says {value!r:.60}, no candidate{did_you_mean(str(value), names)}"
            )
        if isinstance(value, str) and value.strip() in texts:
            return (list(texts).index(value.strip()),)
        if isinstance(said, int) and 0 <= said < len(texts):
            return (said,)
        letters = string.ascii_uppercase[: len(texts)]
        if isinstance(value, str) and len(value.strip()) == 1 and value.strip() in letters:
            return (letters.index(value.strip()),)
        shown = ", ".join(texts) if len(texts) <= 4 else f"{len(texts)} candidates"
        raise DataError(
            f"{where}: column {self._label!r} says {value!r:.60}, which is none of the candidates ({shown:.120}): "
            f"write its text, or its number from 0 to {len(texts) - 1}"
        )

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
                [one[0] for one in lists_of(split, own, rows, "task.text")] if first else texts_of(split, own, rows)
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
