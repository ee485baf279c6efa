"""What a checkpoint's own head calls its classes: names, numbers or nothing, and configurations that do not know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpcfed.config import ModelConfig
from hpcfed.model import head_labels, load_model
from tests.support.small import named, save_tiny_folder

IMAGES = "image-classification"


def open_(folder: Path, id2label: dict[int, str], **changes: Any) -> ModelConfig:
    return ModelConfig(name=str(named(folder, id2label, **changes)))


@pytest.mark.parametrize(
    ("id2label", "names"),
    [
        ({0: "cat", 1: "dog"}, ("cat", "dog")),
        ({1: "cat", 0: "dog"}, ("dog", "cat")),
        ({0: "LABEL_0", 1: "LABEL_1"}, ()),
        ({0: "0", 1: "1"}, ()),
        ({0: "LABEL_1", 1: "LABEL_0"}, ("1", "0")),
        ({0: "1", 1: "2"}, ("1", "2")),
        ({i: f"LABEL_{i}" for i in range(12)}, ()),
    ],
)
def test_names_of_the_outputs(tmp_path: Path, id2label: dict[int, str], names: tuple[str, ...]):
    head = head_labels(open_(save_tiny_folder(tmp_path, "vit"), id2label), IMAGES)
    assert head is not None and (head.count, head.names, head.fault) == (len(id2label), names, "")


@pytest.mark.parametrize(
    ("id2label", "changes", "fault"),
    [
        ({0: "cat", 2: "dog"}, {}, "id2label numbers its 2 classes 0, 2"),
        ({1: "cat", 2: "dog"}, {}, "id2label numbers its 2 classes 1, 2"),
        ({0: "cat", 1: "cat"}, {}, "id2label has 'cat' 2 times"),
        ({0: "cat", 1: "dog"}, {"label2id": {"cat": 1, "dog": 0}}, "label2id says that class 1 is 'cat'"),
        ({0: "LABEL_0", 1: "LABEL_1"}, {"label2id": {"cat": 0, "dog": 1}}, "label2id says that class 0 is 'cat'"),
        ({0: "0", 1: "1"}, {"label2id": {"0": 1, "1": 0}}, "label2id says that class 1 is '0'"),
    ],
)
def test_a_configuration_that_contradicts_itself(
    tmp_path: Path, id2label: dict[int, str], changes: dict[str, Any], fault: str
):
    head = head_labels(open_(save_tiny_folder(tmp_path, "vit"), id2label, **changes), IMAGES)
    assert head is not None and head.fault.startswith(fault)


def test_numbers_in_label2id_contradict_no_names(tmp_path: Path):
    numbers = {"LABEL_0": 0, "LABEL_1": 1}
    head = head_labels(open_(save_tiny_folder(tmp_path, "vit"), {0: "cat", 1: "dog"}, label2id=numbers), IMAGES)
    assert head is not None and head.names == ("cat", "dog") and not head.fault


def test_a_checkpoint_of_another_kind_has_no_head(tmp_path: Path):
    opt = ModelConfig(name=str(save_tiny_folder(tmp_path, "opt")))
    assert head_labels(opt, "sequence-classification") is None and head_labels(opt, "causal-lm") is None
    trunk = open_(save_tiny_folder(tmp_path, "vit"), {0: "LABEL_0", 1: "LABEL_1"}, architectures=["ViTModel"])
    assert head_labels(trunk, IMAGES) is None


def test_a_loaded_classifier_calls_its_classes_as_the_task_does(tmp_path: Path):
    config = open_(save_tiny_folder(tmp_path, "vit"), {0: "LABEL_0", 1: "LABEL_1"})
    loaded = load_model(config, IMAGES, ["cat", "dog"]).config
    assert loaded.id2label == {0: "cat", 1: "dog"} and loaded.label2id == {"cat": 0, "dog": 1}
