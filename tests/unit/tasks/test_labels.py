"""Labels of any spelling become classes, and what a run uses is drawn by seed, class and limit alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcfed.errors import DataError
from hpcfed.tasks.labels import class_indices, class_names, few_shot, limited
from tests.support.small import save_tiny_folder, tiny_sst2, write_jsonl
from tests.support.tasks import open_task, same_examples


@pytest.fixture(scope="module")
def opt(tmp_path_factory):
    return save_tiny_folder(tmp_path_factory.mktemp("model"), "opt")


def test_truth_values_are_labels_and_unlabelled_rows_are_left_out(tmp_path, opt):
    rows = [{"passage": "the film", "question": "is it great", "answer": a} for a in (True, False)]
    data = write_jsonl(tmp_path / "train.jsonl", rows)
    task = open_task(opt, name="boolq", data=str(data), eval_splits=["train"], label="answer")
    assert task.train.labels.tolist() == [1, 0]
    rows = [{"premise": "a", "hypothesis": "b", "label": label} for label in (2, -1, 0)]
    data = write_jsonl(tmp_path / "snli" / "train.jsonl", rows)
    assert open_task(opt, name="snli", data=str(data), eval_splits=["train"]).train.labels.tolist() == [2, 0]


def test_few_shot_takes_k_a_class_by_seed(tmp_path, opt):
    data = str(tiny_sst2(tmp_path))
    first, again, other = (
        open_task(opt, name="sst2", data=data, few_shot=4, few_shot_seed=seed).train for seed in (13, 13, 21)
    )
    assert (
        np.bincount(first.labels).tolist() == [4, 4] and same_examples(first, again) and not same_examples(first, other)
    )
    with pytest.raises(DataError, match=r"task.few_shot=400: .* has only \d+ examples of class 'negative'"):
        open_task(opt, name="sst2", data=data, few_shot=400)


def test_limits_draw_a_part_of_each_split(tmp_path, opt):
    data = str(tiny_sst2(tmp_path))
    task = open_task(opt, name="sst2", data=data, train_limit=10, eval_limit=5, eval_splits=["validation", "test"])
    assert [len(task.train), *map(len, task.splits.values())] == [10, 5, 5]
    assert len(open_task(opt, name="sst2", data=data, train_limit=10_000).train) == 64


@pytest.mark.parametrize(
    ("values", "names", "classes"),
    [
        (["b", "a", "b"], None, ["a", "b"]),
        ([2, 0, 0], None, ["0", "1", "2"]),  # a class that nobody has is one all the same
        (["2", "0"], None, ["0", "1", "2"]),
        ([1.0, 0.0], None, ["0", "1"]),
        ([True, False], None, ["0", "1"]),
        ([None, "", float("nan"), "x"], None, ["x"]),
        ([1, "x"], None, ["1", "x"]),
        ([], None, []),
        ([0, 1], ["no", "yes"], ["no", "yes"]),
    ],
)
def test_names_of_classes_that_the_data_say(values: list[object], names: list[str] | None, classes: list[str]):
    assert class_names(values, names) == classes


def test_classes_by_number_by_name_and_by_another_order():
    labels = ["bad", "good"]
    for values in ([0, 1, 1], ["bad", "good", "good"], ["0", "1", " 1 "], [0.0, 1.0, True], [False, 1, "good"]):
        assert class_indices(values, labels, None, "w", None).tolist() == [0, 1, 1]
    assert class_indices([0, 1], labels, ["good", "bad"], "w", None).tolist() == [1, 0]  # as the data set numbers them
    assert class_indices([0, 1], labels, ["x", "y"], "w", None).tolist() == [0, 1]  # it calls them something else
    assert class_indices([-1, 1, -1], labels, None, "w", -1).tolist() == [-1, 1, -1]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (2, "label 2 is out of range; must be 0 to 1"),
        (-1, "label -1 is out of range"),
        (0.5, "label 0.5 must be 0 to 1"),
        ("goood", "label 'goood' is no class; did you mean good?"),
        (None, "the label is missing"),
        (float("nan"), "the label is missing"),
        ([0], "must be 0 to 1"),
    ],
)
def test_a_label_that_is_none_is_said_with_its_row(value: object, says: str):
    with pytest.raises(DataError) as caught:
        class_indices([0, 1, value], ["bad", "good"], None, "train.csv", None)
    assert str(caught.value).startswith("train.csv, row 3: ") and says in str(caught.value)


@given(st.lists(st.integers(0, 2), max_size=40), st.integers(1, 4), st.integers(0, 99))
def test_few_shot_is_a_sorted_sample_of_every_class(classes: list[int], k: int, seed: int):
    labels = np.array(classes, np.int64)
    counts = np.bincount(labels, minlength=3)
    if counts.min() < k:
        short = int(np.argmax(counts < k))
        with pytest.raises(DataError, match=rf"few_shot={k}: here has only {counts[short]} .* class '{'abc'[short]}'"):
            few_shot(labels, "abc", k, seed, "here")
        return
    rows = few_shot(labels, "abc", k, seed, "here")
    assert rows.tolist() == sorted(set(rows.tolist())) and np.bincount(labels[rows]).tolist() == [k] * 3
    assert few_shot(labels, "abc", k, seed, "there").tolist() == rows.tolist()


@given(st.integers(0, 50), st.integers(1, 60) | st.none(), st.integers(0, 99))
def test_a_limit_leaves_a_sorted_sample(n: int, limit: int | None, seed: int):
    rows = np.arange(n) * 3
    left = limited(rows, limit, seed, "limit train")
    assert len(left) == (n if limit is None else min(n, limit)) and set(left) <= set(rows)
    assert left.tolist() == sorted(set(left.tolist())) == limited(rows, limit, seed, "limit train").tolist()


def test_splits_and_seeds_are_limited_apart():
    rows = np.arange(1000)
    drawn = {
        tuple(limited(rows, 20, seed, f"limit {split}").tolist()) for seed in (0, 1) for split in ("train", "test")
    }
    assert len(drawn) == 4
