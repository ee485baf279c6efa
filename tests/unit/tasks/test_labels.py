"""Labels of any spelling become classes, and what a run uses is drawn by seed, class and limit alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcfed.errors import DataError
from hpcfed.tasks.labels import Classes, class_indices, class_names, few_shot, limited
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
    ("values", "classes"),
    [
        (["b", "a", " b "], ["a", "b"]),
        ([2, 0, 0], [0, 2]),
        (["4", "1", "3", "2"], [1, 2, 3, 4]),
        ([10, 9, 100], [9, 10, 100]),  # as numbers, not as texts
        ([1.0, "1", 1, " 01 ", "1e0", "2."], [1, 2]),
        ([-1, 1], [-1, 1]),
        ([10**9, 5], [5, 10**9]),
        ([True, False], ["False", "True"]),
        ([None, "", "  ", float("nan"), "x"], ["x"]),
        ([1, "x"], ["1", "x"]),
        (["--5", "1.2.3", "0x1"], ["--5", "0x1", "1.2.3"]),
        (["A", "A-", "A+"], ["A", "A+", "A-"]),
        ([], []),
    ],
)
def test_classes_that_the_labels_are(values: list[object], classes: list[object]):
    assert class_names([("w", values)]) == classes


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (["Positive", "positive "], "row 2: label 'positive' is spelt 'Positive' in w, row 1"),
        (["not_spam", "spam", "Not-Spam"], "row 3: label 'Not-Spam' is spelt 'not_spam'"),
        (["x", 3, "\u0663"], "row 3: label '\u0663' is spelt 3"),
        ([0.5, 1.0], "row 1: label 0.5 is no whole number"),
        (["1", "2.75"], "row 2: label 2.75 is no whole number"),
        (["a", ["b"]], "row 2: label ['b'] is a list"),
        (["a", b"b"], "row 2: label b'b' is a bytes"),
        ([float("inf")], "row 1: label inf is no whole number"),
    ],
)
def test_labels_that_are_no_classes(values: list[object], says: str):
    with pytest.raises(DataError) as caught:
        class_names([("w", values)])
    assert says in str(caught.value)


def test_classes_by_number_by_name_and_by_another_order():
    classes = Classes.named(["bad", "good"])
    for values in (
        [0, 1, 1], ["bad", "good", "good"], ["0", "1", " 1 "], [0.0, 1.0, True], [False, 1, "good"],
        ["BAD ", " Good", "1.0"], ["False", "true", "TRUE"],
    ):  # fmt: skip
        assert class_indices(values, classes, "w").tolist() == [0, 1, 1]
    assert class_indices([0, 1], classes, "w", ["good", "bad"]).tolist() == [1, 0]  # as the data set numbers them
    assert class_indices([0, 1], classes, "w", ["Good", "BAD"]).tolist() == [1, 0]
    assert class_indices([0, -1, 1], classes, "w", ["LABEL_0", "LABEL_1"]).tolist() == [0, -1, 1]  # no names
    assert class_indices([0, 1], classes, "w", ["1", "0"]).tolist() == [1, 0]
    assert class_indices([2, 1], classes, "w", ["hidden", "good", "bad"]).tolist() == [0, 1]
    for names in (["x", "y"], ["good", "y"], ["neg", "pos"], ["Good review", "Bad review"], ["yes", "no"], ["0", "2"]):
        with pytest.raises(DataError, match=r"the data set calls its classes .*, the task bad, good; name them alike"):
            class_indices([0, 1], classes, "w", names)


def test_text_is_a_name_before_it_is_a_number():
    assert class_indices(["1", "2"], Classes.named(["1", "2", "3"]), "w").tolist() == [0, 1]
    assert class_indices(["1", "0"], Classes.named(["1", "0"]), "w").tolist() == [0, 1]
    assert class_indices([1, 2], Classes.named(["1", "2", "3"]), "w").tolist() == [1, 2]  # numbers are places


@pytest.mark.parametrize("values", [[True, False], ["true", "False"]])
@pytest.mark.parametrize("labels", [["entailment", "not_entailment"], ["spam", "no spam"], ["toxic", "non-toxic"]])
def test_true_is_not_the_negation_of_a_class(values: list[object], labels: list[str]):
    with pytest.raises(DataError, match=r"row 1: label .* is no class"):
        class_indices(values, Classes.named(labels), "w")


def test_half_a_character_is_no_label():
    with pytest.raises(DataError, match=r"w, row 2: label 'b\\ud800' .* half a character"):
        class_names([("w", ["a", "b\ud800"])])


def test_rows_that_nobody_has_labelled():
    classes = Classes.named(["entailment", "neutral", "contradiction"])
    assert class_indices([-1, 1, "-1", "-"], classes, "w", None, (-1, "-")).tolist() == [-1, 1, -1, -1]
    assert class_indices(["neutral", "-"], classes, "w", None, (-1, "-")).tolist() == [1, -1]
    assert class_indices([-1, -1], classes, "w", None, (-1,)).tolist() == [-1, -1]


@pytest.mark.parametrize(
    ("labels", "values"),
    [
        ("ab", [-1, 1]),
        ("ab", ["1", "-1"]),
        ("ab", [-1.0, 1.0]),
        ("ab", [-1, 0]),
        ("abc", [1, 0, -1]),
        ("abcd", [-1, 0, 1, 2]),
    ],
)
def test_minus_one_as_a_class_is_no_missing_label(labels: str, values: list[object]):
    with pytest.raises(DataError, match=r"w: its labels are -1.* nobody knows .*; write 0 for a, 1 for b"):
        class_indices(values * 3, Classes.named(labels), "w", None, (-1,))
    assert class_indices([*values, *range(len(labels))], Classes.named(labels), "w", None, (-1,)).min() == -1


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (2, "label 2 is out of range; must be 0 to 1"),
        (-1, "label -1 is out of range"),
        (0.5, "label 0.5 must be 0 to 1"),
        ("goood", "label 'goood' is no class; did you mean good?"),
        ("--5", "label '--5' is no class"),
        ("\u0663", "is no class"),
        (None, "the label is missing"),
        (" ", "the label is missing"),
        (float("nan"), "the label is missing"),
        ([0], "label [0] is a list"),
    ],
)
def test_a_label_that_is_none_is_said_with_its_row(value: object, says: str):
    with pytest.raises(DataError) as caught:
        class_indices([0, 1, value], Classes.named(["bad", "good"]), "train.csv")
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
