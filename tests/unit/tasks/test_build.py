"""From a recipe's [task] to a Task: which columns and splits, what the model is loaded as, which names were meant."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hpcfed.config import TaskConfig
from hpcfed.errors import ConfigError, DataError
from hpcfed.tasks.asked import kind_of, task_info, usual_length
from hpcfed.tasks.base import IMAGES
from hpcfed.tasks.build import load_task
from hpcfed.tasks.table import TASKS
from tests.support.small import save_tiny_folder, tiny_sst2, write_jsonl
from tests.support.tasks import SENTENCES, open_task


@pytest.fixture(scope="module")
def opt(tmp_path_factory):
    return save_tiny_folder(tmp_path_factory.mktemp("model"), "opt")


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    return save_tiny_folder(tmp_path_factory.mktemp("model"), "vit", labels=10, size=8)


def test_other_columns_and_named_labels(tmp_path, opt):
    rows = [{"text": r["sentence"], "verdict": ["negative", "positive"][r["label"]]} for r in SENTENCES]
    data = write_jsonl(tmp_path / "train.jsonl", rows)
    task = open_task(opt, name="sst2", data=str(data), eval_splits=["train"], text=["text"], label="verdict")
    assert task.train.labels.tolist() == [row["label"] for row in SENTENCES]


def test_a_custom_task_takes_everything_from_the_recipe_and_the_data(tmp_path, opt):
    rows = [{"a": "the film", "b": "the plot", "kind": k, "who": f"p{i % 3}"} for i, k in enumerate("xyzxyz")]
    data = write_jsonl(tmp_path / "train.jsonl", rows)
    settings = {"name": "custom", "data": str(data), "eval_splits": ["train"], "text": ["a", "b"], "label": "kind"}
    head = open_task(opt, owners="who", **settings)
    assert head.labels == ["x", "y", "z"] and head.train.labels.tolist() == [0, 1, 2] * 2 and head.head_rows is None
    assert head.train.owners.tolist() == ["p0", "p1", "p2"] * 2
    asked = open_task(opt, **settings, prompt="{a} and {b}? {verbalizer}", verbalizers=["Yes", "No", "Maybe"])
    assert len(asked.head_rows) == 3 and asked.keep_last == 1


def test_digits_come_with_the_package(vit):
    task = open_task(vit, name="digits")
    batch = task.collate([task.train[i] for i in range(3)])
    assert batch.inputs["pixel_values"].shape == (3, 1, 8, 8) and list(task.splits) == ["test"]
    assert open_task(vit, name="digits", few_shot=2).train.labels.tolist().count(7) == 2
    with pytest.raises(ConfigError, match="digits come with the package"):
        open_task(vit, name="digits", data="somewhere")
    with pytest.raises(DataError, match="did you mean test"):
        open_task(vit, name="digits", eval_splits=["tests"])


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"text": ["sentense"]}, DataError, ["'sentense'", "did you mean sentence?", "task.text"]),
        ({"label": "lable"}, DataError, ["'lable'", "did you mean label?", "task.label"]),
        ({"eval_splits": ["validaton"]}, DataError, ["'validaton'", "did you mean validation?"]),
        ({"train_split": "trian"}, DataError, ["'trian'", "did you mean train?"]),
        ({"name": "sst3"}, ConfigError, ["'sst3' is not a task", "did you mean sst5?"]),
        ({"name": "cifar10"}, ConfigError, ["about images"]),
        ({"text": ["a", "b"]}, ConfigError, ["1 text columns"]),
        ({"name": "custom", "text": ["sentence"], "form": "prompt"}, ConfigError, ["task.prompt and task.verbalizers"]),
        ({"name": "custom"}, ConfigError, ["task.text"]),
    ],
)
def test_wrong_names_come_with_the_right_ones(tmp_path, opt, settings, error, words):
    with pytest.raises(error) as raised:
        open_task(opt, **({"name": "sst2", "data": str(tiny_sst2(tmp_path))} | settings))
    assert all(word in str(raised.value) for word in words), raised.value


HEAD = "sequence-classification"
OWN: dict[str, Any] = {"name": "custom", "data": "d", "text": ["a"]}


@pytest.mark.parametrize(
    ("settings", "native", "kind"),
    [
        ({"name": "sst2"}, "causal-lm", "causal-lm"),
        ({"name": "sst2"}, "masked-lm", "masked-lm"),
        ({"name": "sst2"}, HEAD, HEAD),
        ({"name": "sst2", "form": "head"}, "causal-lm", HEAD),
        ({"name": "sst2", "form": "prompt"}, "masked-lm", "masked-lm"),
        (OWN, "causal-lm", HEAD),  # nobody says how to ask
        (OWN | {"prompt": "{a} {verbalizer}"}, "causal-lm", "causal-lm"),
        (OWN | {"form": "prompt"}, "causal-lm", "causal-lm"),
        (OWN | {"text": []}, IMAGES, IMAGES),
        ({"name": "cifar10"}, IMAGES, IMAGES),
        ({"name": "digits", "form": "head"}, IMAGES, IMAGES),
    ],
)
def test_what_a_model_is_loaded_as(settings: dict[str, Any], native: str, kind: str):
    assert kind_of(TaskConfig(**settings), native) == kind


@pytest.mark.parametrize(
    ("settings", "native", "says"),
    [
        ({"name": "sst2"}, IMAGES, "about text, the model is an image classifier"),
        ({"name": "cifar10"}, "causal-lm", "about images, the model is a causal-lm model$"),
        (OWN | {"text": None}, "causal-lm", "for text, task.text must name the text columns"),
        ({"name": "sst2", "form": "prompt"}, HEAD, 'task.form="prompt" needs a language model'),
        ({"name": "custom", "text": ["a"]}, "causal-lm", "task.data must say where the data lie"),
    ],
)
def test_models_that_a_task_is_not_for(settings: dict[str, Any], native: str, says: str):
    with pytest.raises(ConfigError, match=says):
        kind_of(TaskConfig(**settings), native)


def test_a_named_task_is_that_of_the_table():
    assert all(task_info(TaskConfig(name=name)) == info for name, info in TASKS.items() if not info.open)
    with pytest.raises(ConfigError, match=r"task cb reads 2 text columns \(premise, hypothesis\)"):
        task_info(TaskConfig(name="cb", text=["a"]))
    with pytest.raises(ConfigError, match="task cifar10 reads images, no text"):
        task_info(TaskConfig(name="cifar10", text=["a"]))


def test_examples_are_cut_where_the_task_and_the_model_say():
    assert usual_length(TASKS["sst2"], "causal-lm") == usual_length(TASKS["cb"], "masked-lm") == 256
    assert usual_length(TASKS["sst2"], "masked-lm") == usual_length(TASKS["sst2"], HEAD) == 128


def test_what_was_read_kept_and_left_out_is_counted(tmp_path, opt):
    rows = [*SENTENCES, {"sentence": "nobody knows", "label": -1}]
    write_jsonl(tmp_path / "train_0.jsonl", rows)
    write_jsonl(tmp_path / "train_1.jsonl", rows)
    write_jsonl(tmp_path / "validation.jsonl", rows * 2)
    task = open_task(opt, name="sst2", data=str(tmp_path), eval_limit=5)
    train, validation = task.readings["train"], task.readings["validation"]
    assert [count for _, count in train.files] == [7, 7] and train.kept == len(task.train) == 12
    assert train.left_out == {"no label": 2}
    assert (validation.rows, validation.kept) == (14, 5)
    assert validation.left_out == {"no label": 2, "task.eval_limit": 7}
    assert task.notes == []
    again = open_task(opt, name="sst2", data=str(tmp_path))
    assert "validation holds the same examples as train" in again.overlaps[0]


def test_a_row_of_the_second_file_is_named(tmp_path, opt):
    write_jsonl(tmp_path / "train_0.jsonl", SENTENCES)
    write_jsonl(tmp_path / "train_1.jsonl", [*SENTENCES[:2], {"sentence": "a", "label": 7}])
    with pytest.raises(DataError, match=r"train_1\.jsonl, row 3: label 7 is out of range"):
        open_task(opt, name="sst2", data=str(tmp_path), eval_splits=["train"])


def test_what_is_trained_on_and_evaluated_and_what_is_not_used_is_said(tmp_path):
    folder = save_tiny_folder(tmp_path, "roberta", head="sequence-classification")
    write_jsonl(tmp_path / "train.jsonl", SENTENCES)
    task = open_task(folder, name="sst2", data=str(tmp_path), eval_splits=["train"], prompt="{sentence} {verbalizer}")
    assert "train is trained on and evaluated: scores on it are scores on training data" in task.notes
    assert any(note.startswith("task.prompt is not used") for note in task.notes)


@pytest.mark.parametrize(
    ("train", "validation"),
    [
        (["negative", "positive"], ["neg", "pos"]),
        (["0", "1"], ["no", "yes"]),
        ([0, 1], [2, 3]),
        (["a", "b"], ["c"]),
        (["cat", "dog"], ["cats", "dogs"]),
        ([0, 1], [True, False]),
    ],
)
def test_splits_that_share_no_label_are_refused(tmp_path, opt, train, validation):
    for split, labels in (("train", train), ("validation", validation)):
        write_jsonl(
            tmp_path / f"{split}.jsonl", [{"text": f"film {i}", "label": one} for i, one in enumerate(labels * 2)]
        )
    more = {"eval_splits": ["validation"], "text": ["text"], "form": "head"}
    with pytest.raises(DataError, match=r"the labels of train are .*, those of validation .*: none is in both"):
        open_task(opt, name="custom", data=str(tmp_path), **more)


def official(passages: int, questions: int) -> list[dict[str, Any]]:
    """MultiRC's own rows: a passage each, two answers a question, the first right."""
    asked = [
        {"question": f"the film {q}", "answers": [{"text": t, "label": t == "good"} for t in ("good", "bad")]}
        for q in range(questions)
    ]
    return [
        {"idx": p, "clinic": f"c{p % 2}", "passage": {"text": f"the plot {p}", "questions": asked}}
        for p in range(passages)
    ]


def test_official_rows_are_examples_in_groups_with_the_columns_of_their_row(tmp_path, opt):
    data = write_jsonl(tmp_path / "train.jsonl", official(8, 3))
    task = open_task(
        opt, owners="clinic", classes="idx", name="multirc", data=str(data), eval_splits=[], dev=7, max_length=64
    )
    train = task.train
    assert len(train) == 36 and len(task.splits["dev"]) == 12  # whole passages of six examples
    assert train.labels.tolist() == [1, 0] * 18
    assert train.groups is not None and np.unique(train.groups, return_counts=True)[1].tolist() == [6] * 6
    assert train.classes.tolist() == train.groups.tolist() and len(set(train.owners)) == 2
    assert task.readings["train"].line("train").endswith("12 left out (for dev or held_out), 36 kept")


def test_columns_inside_columns_are_texts_labels_owners_and_groups(tmp_path, opt):
    rows = [
        {"said": {"text": r["sentence"], "by": f"p{i % 2}"}, "meta": {"label": r["label"]}, "at": {"page": i // 2}}
        for i, r in enumerate(SENTENCES)
    ]
    data = write_jsonl(tmp_path / "train.jsonl", rows)
    settings = {"name": "sst2", "data": str(data), "eval_splits": ["train"], "label": "meta.label"}
    task = open_task(opt, owners="said.by", classes="said.by", text=["said.text"], group="at.page", **settings)
    assert task.train.labels.tolist() == [r["label"] for r in SENTENCES]
    assert task.train.groups.tolist() == [0, 0, 1, 1, 2, 2] and task.train.classes.tolist() == [0, 1] * 3
    assert task.train.owners.tolist() == ["p0", "p1"] * 3
    with pytest.raises(DataError, match=r"no row of 'said' has 'txt'.*did you mean text"):
        open_task(opt, text=["said.txt"], **settings)


def test_digits_keep_a_dev_split_from_the_clients(tmp_path):
    task = load_task(
        TaskConfig(name="digits", dev=100, train_limit=500, metrics=["accuracy", "macro-f1"]), IMAGES, None
    )
    assert len(task.splits["dev"]) == 100 and len(task.train) == 500 and list(task.splits) == ["test", "dev"]
    assert task.readings["train"].left_out == {"for dev or held_out": 100, "task.train_limit or task.few_shot": 100}
    assert task.metrics == ("accuracy", "macro-f1")
    for setting, value in (("held_out", {"x": ["y"]}), ("group", "x")):
        with pytest.raises(ConfigError, match=f"task.{setting}="):
            load_task(TaskConfig(name="digits", **{setting: value}), IMAGES, None)


def test_a_task_of_classes_says_what_it_has_no_use_for(tmp_path):
    with pytest.raises(ConfigError, match=r'task.objective="answer": task sst2 has classes'):
        task_info(TaskConfig(name="sst2", objective="answer"))
    folder = save_tiny_folder(tmp_path, "roberta")
    task = open_task(folder, name="sst2", data=str(tiny_sst2(tmp_path)), form="head", chat=True)
    assert any("task.chat is not used" in note for note in task.notes)
