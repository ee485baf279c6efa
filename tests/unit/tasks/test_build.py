"""From a recipe's [task] to a Task: which columns and splits, what the model is loaded as, which names were meant."""

from __future__ import annotations

from typing import Any

import pytest

from hpcfed.config import TaskConfig
from hpcfed.errors import ConfigError, DataError
from hpcfed.tasks.build import IMAGES, kind_of, task_info, usual_length
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
    assert all(task_info(TaskConfig(name=name)) is info for name, info in TASKS.items())
    with pytest.raises(ConfigError, match=r"task cb reads 2 text columns \(premise, hypothesis\)"):
        task_info(TaskConfig(name="cb", text=["a"]))
    with pytest.raises(ConfigError, match="task cifar10 reads images, no text"):
        task_info(TaskConfig(name="cifar10", text=["a"]))


def test_examples_are_cut_where_the_task_and_the_model_say():
    assert usual_length(TASKS["sst2"], "causal-lm") == usual_length(TASKS["cb"], "masked-lm") == 256
    assert usual_length(TASKS["sst2"], "masked-lm") == usual_length(TASKS["sst2"], HEAD) == 128
