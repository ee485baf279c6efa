"""What config.json alone says is what the model with its weights turns out to be."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcfed.config import ModelConfig
from hpcfed.errors import ConfigError
from hpcfed.model import load_model, load_processor, outline
from tests.support.small import CLASSES, save_tiny_folder, tiny_config

LABELS = ["a", "b", "c"]


def without_weights(folder: Path) -> ModelConfig:
    (folder / "model.safetensors").unlink()
    return ModelConfig(name=str(folder), dtype="bfloat16")


@pytest.mark.parametrize(("family", "kind"), CLASSES)
def test_the_model_but_for_its_weights(tmp_path: Path, family: str, kind: str):
    folder = save_tiny_folder(tmp_path, family, kind)
    whole = load_model(ModelConfig(name=str(folder), dtype="bfloat16"), kind, LABELS)
    shadow = outline(without_weights(folder), kind, LABELS).model
    found, wanted = ([(n, p.shape, p.dtype) for n, p in m.named_parameters()] for m in (shadow, whole))
    assert found == wanted  # ties included
    found, wanted = ([(n, b.shape, b.dtype) for n, b in m.named_buffers()] for m in (shadow, whole))
    assert found == wanted
    assert all(t.is_meta for t in [*shadow.parameters(), *shadow.buffers()])
    assert not shadow.training and not any(p.requires_grad for p in shadow.parameters())


@pytest.mark.parametrize(
    ("family", "kind", "positions"),
    [("opt", "causal-lm", 128), ("llama", "causal-lm", 128), ("roberta", "masked-lm", 130 - 2), ("vit", None, None)],
)
def test_what_goes_in(tmp_path: Path, family: str, kind: str | None, positions: int | None):
    folder = save_tiny_folder(tmp_path, family, kind)
    config, kind = ModelConfig(name=str(folder)), kind or "image-classification"
    found = outline(config, kind, ["a", "b"])
    assert found.positions == positions and found.config.model_type == family
    if family == "vit":
        assert found.image == (1, 8, 8) and not found.position_ids
        return
    names = load_processor(config, kind).model_input_names
    assert found.image is None and found.position_ids == ("position_ids" in names) == (kind == "causal-lm")


def test_a_classifier_has_as_many_outputs_as_the_task_has_classes(tmp_path: Path):
    config = without_weights(save_tiny_folder(tmp_path, "vit", labels=2))
    assert outline(config, "image-classification", LABELS).model.classifier.weight.shape == (3, 32)


def test_what_has_no_such_form_is_refused(tmp_path: Path):
    tiny_config("vit").save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="vit models have no causal-lm form"):
        outline(ModelConfig(name=str(tmp_path)), "causal-lm", [])
