"""Metrics and mean loss on a split, spread over all rows; the same figures for any number of rows.

Formula  value = mean over examples of a metric of one; or a metric of the whole split (macro-F1)
         majority = share of the examples to which the most frequent right answer is right
         worst, spread = lowest value and standard deviation over the owners of the split's examples
Promise  sums are rounded once (math.fsum), so no order of examples and no number of rows changes a figure
"""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..config.outside import is_outside
from ..errors import ConfigError
from ..transport.base import Transport
from . import Examples, Task
from .base import Example
from .metrics import METRICS, Answered, Metric, find_metric, mean

TOKENS = 16384  # most of a batch, padding included; one example may have more

#: (inputs of a batch of prompts, most new tokens, ids that end an answer) -> ids of each answer.
Generate = Callable[[dict[str, Tensor], int, frozenset[int]], list[list[int]]]


@dataclass(frozen=True)
class Result:
    """Of one example.  index: in its split.  values: its metrics, without those of whole splits only."""

    index: int
    loss: float
    answered: Answered
    values: Mapping[str, float]


@dataclass(frozen=True)
class Score:
    """value: the task's main metric in [0, 1].  loss: mean over examples.  examples: how many.  metric: its name.

    values: all metrics by name.  majority: accuracy of always giving the most frequent right answer; None where
    accuracy is not asked for.  worst, spread: of the main metric over owners, where the examples have some.
    """

    value: float
    loss: float
    examples: int
    metric: str = "accuracy"
    values: Mapping[str, float] = field(default_factory=dict)
    majority: float | None = None
    worst: float | None = None
    spread: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", {self.metric: self.value, **self.values})

    def data(self) -> dict[str, Any]:
        """For JSON, without what is not known of it."""
        return {key: figure for key, figure in vars(self).items() if figure is not None}


def never() -> bool:
    """Nobody asks for the end."""
    return False


def evaluate(
    forward: Callable[[dict[str, Tensor]], Tensor],
    task: Task,
    examples: Examples,
    batch: int,
    transport: Transport,
    stop: Callable[[], bool] = never,
    generate: Generate | None = None,
) -> Score | None:
    """The score of a split; arguments, traffic and None as in `answers`. Collective, every row once."""
    results = answers(forward, task, examples, batch, transport, stop, generate)
    return None if results is None else score_of(task, examples, results)


@torch.inference_mode()
def answers(
    forward: Callable[[dict[str, Tensor]], Tensor],
    task: Task,
    examples: Examples,
    batch: int,
    transport: Transport,
    stop: Callable[[], bool] = never,
    generate: Generate | None = None,
) -> list[Result] | None:
    """Loss, answer and metrics of each example, in their order, on every row.

    Collective, every row once. Traffic: of each example some 100 bytes and the texts of answer and references.
    Batches are cut from the examples in order of length (less padding), whatever the number of rows: of at most `batch`
    examples and TOKENS tokens.  generate: what decodes answers, for a task with `decoding`; losses are of the logits.
    stop: called after each batch of a row, collective, the same on every row; if it says so the evaluation is given up,
    and there is no result.  Raises ConfigError if a metric of the user's own fails.
    """
    metrics, judged = _metrics(task), task.judged
    batches = list(_cut([judged.tokens(examples[i]) for i in range(len(examples))], batch))
    own, problem = list[Any](), ""
    for first in range(0, len(batches), transport.rows):  # of the batches that all rows take at a time
        if (j := first + transport.row.index) < len(batches) and not problem:
            chosen = [examples[i] for i in batches[j]]
            part = judged.collate(chosen)
            logits = forward(part.inputs)
            losses, credits = judged.losses(logits, part).tolist(), judged.credits(logits, part)
            answered = _decoded(task, chosen, generate) if task.decoding else judged.answered(logits, part)
            given = [None] * len(chosen) if credits is None else credits.tolist()
            try:
                for i, loss, answer, credit in zip(batches[j], losses, answered, given, strict=True):
                    values = _values(metrics, answer, credit, i)
                    own.append((i, loss, answer.chosen, answer.text, answer.right, answer.references, values))
            except ConfigError as error:  # told in the end, to all rows alike
                problem = str(error)
        if stop():
            return None
    everyone = [json.loads(raw) for raw in transport.all_gather(json.dumps(problem or own).encode())]
    if problem := next((said for said in everyone if isinstance(said, str)), ""):
        raise transport.everywhere(ConfigError(problem))
    return [
        Result(i, loss, Answered(chosen, text, tuple(right), tuple(references)), values)
        for i, loss, chosen, text, right, references, values in sorted(one for row in everyone for one in row)
    ]


def score_of(task: Task, examples: Examples, results: Sequence[Result]) -> Score:
    """What the results of all examples of a split come to."""
    metrics = _metrics(task)
    values = {name: _value(name, metric, results) for name, metric in metrics.items()}
    main, owners = task.metric, dict[Any, list[Result]]()
    for result in results if examples.owners is not None else ():
        owners.setdefault(examples.owners[result.index], []).append(result)  # type: ignore[index]
    by_owner = [_value(main, metrics[main], theirs) for theirs in owners.values()]
    return Score(
        values[main],
        mean([result.loss for result in results]),
        len(results),
        main,
        values,
        _majority(results) if "accuracy" in metrics else None,
        min(by_owner, default=None),
        statistics.pstdev(by_owner) if by_owner else None,
    )


def _metrics(task: Task) -> dict[str, Metric | None]:
    """By name; None: the task's own, whose value is the form's credit."""
    own = [name for name in task.metrics if name not in METRICS and not is_outside(name)]
    if task.form.credit is not None and len(own) != 1:
        raise ConfigError(
            f"task {task.name}: its form has a credit, so one of its metrics is that, under a name of its own, and no "
            f"more: {', '.join(task.metrics)}"
        )
    return {name: None if task.form.credit and name in own else find_metric(name) for name in task.metrics}


def _values(metrics: Mapping[str, Metric | None], answer: Answered, credit: float | None, i: int) -> dict[str, float]:
    """The metrics of example i."""
    values = dict[str, float]()
    for name, metric in metrics.items():
        if metric is None:
            assert credit is not None
            values[name] = float(credit)
        elif metric.each:
            try:
                values[name] = metric.each(answer)
            except ConfigError as error:
                raise ConfigError(f"{error} (example {i + 1} of its split)") from None
    return values


def _value(name: str, metric: Metric | None, results: Sequence[Result]) -> float:
    if metric and not metric.each:
        return metric.whole([result.answered for result in results])
    return mean([result.values[name] for result in results])


def _majority(results: Sequence[Result]) -> float:
    """The share of examples to which the answer is right that is right most often."""
    return max(Counter(i for result in results for i in set(result.answered.right)).values()) / len(results)


def _cut(tokens: Sequence[int], most: int) -> Iterator[list[int]]:
    """Indices of the examples, in order of length, in batches of at most `most` examples and TOKENS tokens."""
    batch = list[int]()
    for i in np.argsort(tokens, kind="stable").tolist():
        if batch and (len(batch) == most or (len(batch) + 1) * tokens[i] > TOKENS):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _decoded(task: Task, examples: Sequence[Example], generate: Generate | None) -> list[Answered]:
    """What the model writes after each prompt."""
    assert generate and task.decoding, "a task that is decoded needs what decodes"
    ids = generate(task.prompts(examples).inputs, task.decoding.most, task.decoding.stop)
    return [task.read(new, example) for new, example in zip(ids, examples, strict=True)]
