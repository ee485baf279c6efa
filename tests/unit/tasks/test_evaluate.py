"""Evaluation against the plain mean over examples, and the same figures for any number of rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from hpcfed.tasks import Examples, Task
from hpcfed.tasks.evaluate import Score, evaluate
from hpcfed.transport.row import Row
from hpcfed.transport.solo import SoloTransport
from tests.support.toy import Line, toy_task

LINE = Line()


def forward(inputs: dict[str, Tensor]) -> Tensor:
    return LINE(inputs["x"]).logits


class Told(SoloTransport):
    """A row among others; what all rows say is known beforehand."""

    def __init__(self, index: int, everyone: list[bytes]) -> None:
        super().__init__()
        self.row, self.rows, self.everyone, self.said = Row(index), len(everyone), everyone, b""

    def all_gather(self, data: bytes) -> list[bytes]:
        self.said = data
        return self.everyone


def on_rows(rows: int, work: Callable[[Told], Score]) -> list[Score]:
    """work() on every row: first to hear what each says, then with all of it."""
    said = []
    for row in range(rows):
        with_others = Told(row, [bytes(16 * 99)] * rows)
        work(with_others)
        said.append(with_others.said)
    return [work(Told(row, said)) for row in range(rows)]


def by_hand(examples: Examples) -> tuple[float, float]:
    x = torch.from_numpy(examples.columns["x"])
    scores, label = LINE(x).logits.detach().double().numpy(), examples.labels
    losses = np.log(np.exp(scores).sum(1)) - scores[np.arange(len(label)), label]
    return float((scores.argmax(1) == label).mean()), float(losses.mean())


@pytest.mark.parametrize("batch", [1, 7, 60, 1000])
def test_a_score_is_the_mean_over_examples(batch: int):
    task = toy_task()
    score = evaluate(forward, task, task.train, batch, SoloTransport())
    value, loss = by_hand(task.train)
    assert (score.examples, score.metric, score.value) == (60, "accuracy", value)
    assert score.loss == pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize("rows", [2, 3, 9])  # of eight batches: one row may have none
def test_rows_share_the_batches_and_find_the_same(rows: int):
    task = toy_task()
    alone = evaluate(forward, task, task.train, 8, SoloTransport())
    asked = list[int]()

    def counted(inputs: dict[str, Tensor]) -> Tensor:
        asked.append(len(inputs["x"]))
        return forward(inputs)

    assert on_rows(rows, lambda row: evaluate(counted, task, task.train, 8, row)) == [alone] * rows
    assert sum(asked) == 2 * 60  # each example once, in each of the two passes of on_rows


def test_batches_are_cut_in_order_of_length():
    task, seen = toy_task(), list[list[float]]()
    by_first = replace(task.form, tokens=lambda example: int(100 + 10 * example["x"][0]))
    ordered: Task = replace(task, form=by_first)

    def note(inputs: dict[str, Tensor]) -> Tensor:
        seen.append(inputs["x"][:, 0].tolist())
        return forward(inputs)

    evaluate(note, ordered, task.train, 16, SoloTransport())
    first = [int(100 + 10 * x) for batch in seen for x in batch]
    assert first == sorted(first) and [len(batch) for batch in seen] == [16, 16, 16, 12]


def test_a_metric_of_the_tasks_own_is_the_mean_credit():
    task = toy_task()
    half = replace(task, metric="halves", form=replace(task.form, credit=lambda scores, batch: 0.5 * batch.label.ne(0)))
    score = evaluate(forward, half, task.train, 16, SoloTransport())
    assert score.metric == "halves" and score.value == pytest.approx(float((task.train.labels != 0).mean()) / 2)
