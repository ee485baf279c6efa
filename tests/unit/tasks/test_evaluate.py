"""Evaluation against the plain mean over examples, and the same figures for any number of rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from torch import Tensor

from hpcfed.errors import ConfigError
from hpcfed.tasks import Decoding, Example, Examples, Task
from hpcfed.tasks.evaluate import TOKENS, answers, evaluate, score_of
from hpcfed.tasks.metrics import Answered
from hpcfed.transport.row import Row
from hpcfed.transport.solo import SoloTransport
from tests.support.toy import Line, toy_task

LINE = Line()
T = TypeVar("T")


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


def on_rows(rows: int, work: Callable[[Told], T]) -> list[T]:
    """work() on every row: first to hear what each says, then with all of it."""
    said = []
    for row in range(rows):
        with_others = Told(row, [b"[]"] * rows)
        with suppress(pytest.fail.Exception):
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
    alone = answers(forward, task, task.train, 8, SoloTransport())
    asked = list[int]()

    def counted(inputs: dict[str, Tensor]) -> Tensor:
        asked.append(len(inputs["x"]))
        return forward(inputs)

    assert on_rows(rows, lambda row: answers(counted, task, task.train, 8, row)) == [alone] * rows
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
    half = replace(
        task, metrics=("halves",), form=replace(task.form, credit=lambda scores, batch: 0.5 * batch.label.ne(0))
    )
    score = evaluate(forward, half, task.train, 16, SoloTransport())
    assert score.metric == "halves" and score.value == pytest.approx(float((task.train.labels != 0).mean()) / 2)


def test_a_credit_has_one_name_of_its_own():
    form = replace(toy_task().form, credit=lambda scores, batch: batch.label.ne(0))
    for metrics in (("accuracy",), ("halves", "acuracy")):
        with pytest.raises(ConfigError, match=f"one of its metrics is that.*: {', '.join(metrics)}"):
            evaluate(forward, replace(toy_task(), metrics=metrics, form=form), toy_task().train, 16, SoloTransport())
    with pytest.raises(ConfigError, match="'acuracy' is no metric; did you mean accuracy"):
        evaluate(forward, replace(toy_task(), metrics=("acuracy",)), toy_task().train, 16, SoloTransport())


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_metrics_of_whole_splits_and_of_owners_are_those_of_any_number_of_rows(rows: int):
    task = replace(toy_task(), metrics=("macro-f1", "accuracy", "em"))
    held = Examples(task.train.columns, task.train.labels, owners=np.arange(60) % 7)
    score = score_of(task, held, on_rows(rows, lambda row: answers(forward, task, held, 8, row))[rows - 1])
    chosen = LINE(torch.from_numpy(held.columns["x"])).logits.argmax(1).numpy()
    macro = f1_score(held.labels, chosen, average="macro")
    share = float((chosen == held.labels).mean())
    assert score.values == {"macro-f1": macro, "accuracy": share, "em": share} and score.value == macro
    assert score.majority == np.bincount(held.labels).max() / 60
    of_owners = [f1_score(held.labels[i::7], chosen[i::7], average="macro", zero_division=0) for i in range(7)]
    assert (score.worst, score.spread) == (min(of_owners), pytest.approx(np.std(of_owners)))


@pytest.mark.parametrize(("length", "sizes"), [(1, [60]), (TOKENS // 7, [7] * 8 + [4]), (TOKENS + 1, [1] * 60)])
def test_a_batch_has_so_many_tokens_at_most(length: int, sizes: list[int]):
    task, seen = toy_task(), list[int]()
    long = replace(task, form=replace(task.form, tokens=lambda example: length))

    def note(inputs: dict[str, Tensor]) -> Tensor:
        seen.append(len(inputs["x"]))
        return forward(inputs)

    alone = evaluate(forward, task, task.train, 1000, SoloTransport())
    score = evaluate(note, long, task.train, 1000, SoloTransport())
    assert score.value == alone.value and score.loss == pytest.approx(alone.loss)
    assert seen == sizes


@dataclass(frozen=True, eq=False)
class Written(Task):
    """A task whose answers are decoded: the model writes the number of the largest coordinate, or nothing."""

    def read(self, ids: Sequence[int], example: Example) -> Answered:
        return Answered(None, " ".join(map(str, ids)), (), (str(example["label"]), "none"))


def test_answers_of_a_decoded_task_are_what_is_written():
    toy = toy_task()
    decoding = Decoding(3, frozenset({9}), str, toy.form.collate)
    task = Written(**vars(toy) | {"metrics": ("em", "f1"), "decoding": decoding})

    def generate(inputs: dict[str, Tensor], most: int, stop: frozenset[int]) -> list[list[int]]:
        assert most == 3 and stop == {9}
        return [[int(i), 7] if i else [int(i)] for i in inputs["x"][:, :3].argmax(1)]

    results = answers(forward, task, task.train, 8, SoloTransport(), generate=generate)
    assert [result.answered.text for result in results] == [f"{i} 7" if i else "0" for i in task.train.labels]
    score, zeros = score_of(task, task.train, results), float((task.train.labels == 0).mean())
    assert score.value == score.values["em"] == zeros
    assert score.values["f1"] == pytest.approx(zeros + (1 - zeros) * 2 / 3) and score.majority is None
    assert score.loss == evaluate(forward, toy_task(), task.train, 8, SoloTransport()).loss


def test_a_metric_of_the_users_own_names_the_example_that_it_fails_at(tmp_path: Path):
    (tmp_path / "own.py").write_text("def metric(prediction, references): return 1 if references == ['a'] else None")
    task = replace(toy_task(), metrics=("accuracy", f"{tmp_path}/own.py:metric"))
    with pytest.raises(ConfigError, match=r"own.py:metric': .* gave None; .* \(example \d+ of its split\)$"):
        evaluate(forward, task, task.train, 8, SoloTransport())

    def fails(row: Told) -> str:
        with pytest.raises(ConfigError) as error:
            answers(forward, task, task.train, 8, row)
        return str(error.value)

    said = on_rows(2, fails)
    assert said[0] == said[1] and said[0].count("gave None") == 1  # of what each row met, one, and on both rows
    first = Examples({"x": task.train.columns["x"][task.train.labels == 0]}, task.train.labels[task.train.labels == 0])
    assert evaluate(forward, task, first, 8, SoloTransport()).values[task.metrics[1]] == 1


def test_a_loss_that_is_no_number_stays_one():
    nan = replace(toy_task().form, loss=lambda scores, batch: scores[:, 0] * float("nan"))
    score = evaluate(forward, replace(toy_task(), form=nan), toy_task().train, 8, SoloTransport())
    assert np.isnan(score.loss) and 0 <= score.value <= 1
