"""A checkpoint's tensors against the model of its config.json: what does not fit is named, never drawn at random."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hpcfed.config import ModelConfig
from hpcfed.errors import ConfigError
from hpcfed.model import load_model
from tests.support.small import save_tiny_folder
from tests.support.zoo import zoo_model

WORDS = ["negative", "positive"]


def changed(folder: Path, change) -> ModelConfig:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, {"format": "pt"})
    return ModelConfig(name=str(folder))


def without(*parts):
    def change(tensors):
        names = [name for name in tensors if any(part in name for part in parts)]
        assert names
        for name in names:
            del tensors[name]

    return change


def added(name, *shape):
    return lambda tensors: tensors.update({name: torch.ones(shape)})


def moved(old, new):
    return lambda tensors: tensors.update({new: tensors.pop(old)})


CLASSIFIER, CAUSAL = "sequence-classification", "causal-lm"


@pytest.mark.parametrize(
    ("kind", "family", "change", "says"),
    [
        (CLASSIFIER, "roberta", without("classifier."), r"classifier\.dense\.bias.* and 1 more missing, though config"),
        (
            CLASSIFIER,
            "roberta",
            without("classifier.dense"),
            r"of its head classifier\.dense\.bias, .*missing, but not",
        ),
        (CLASSIFIER, "roberta", without("out_proj.bias"), r"of its head classifier\.out_proj\.bias missing"),
        (
            CLASSIFIER,
            "roberta",
            moved("classifier.out_proj.weight", "classifier.last.weight"),
            "out_proj.weight missing",
        ),
        (CLASSIFIER, "llama", without("score"), r"score\.weight missing, though config\.json speaks of a head for 2"),
        (
            CLASSIFIER,
            "llama",
            lambda tensors: tensors.update({"score.weight": torch.ones(3, 32)}),
            r"score\.weight of another shape, though config\.json speaks of a head for 2 classes",
        ),
        (
            CLASSIFIER,
            "llama",
            without("layers.1."),
            r"not those of a whole Llama.*model\.layers\.1\..*missing or of an",
        ),
        (CAUSAL, "llama", without("layers.1.mlp"), r"not those of a whole LlamaForCausalLM"),
        (
            CAUSAL,
            "llama",
            added("model.layers.9.mlp.up_proj.weight", 3),
            "layers that the model of config.json lacks",
        ),
        (
            CAUSAL,
            "llama",
            added("model.layers.0.self_attn.q_proj.bias", 32),
            r"q_proj\.bias, which .* no place",
        ),
        (CAUSAL, "llama", added("model.layers.0.self_attn.q_proj.lora_A.default.weight", 4, 32), "an adapter"),
        (CAUSAL, "llama", added("model.layers.1.mlp.up_proj.weight_scale", 1), "a quantised layer must be merged"),
        (CAUSAL, "opt", added("model.decoder.layers.0.fc1.qzeros", 8), "no place for"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, kind, family, change, says):
    folder = save_tiny_folder(tmp_path, family, head=kind)
    with pytest.raises(ConfigError, match=says):
        load_model(changed(folder, change), kind, WORDS)


@pytest.mark.parametrize("family", ["clip", "siglip", "vit", "resnet"])
def test_a_lost_layer_of_an_image_classifier_is_named(tmp_path, family):
    zoo_model("image-classification", family, {}).save_pretrained(tmp_path)
    parts = {"clip": "layers.0.mlp", "siglip": "layers.0.mlp", "vit": "layer.0.", "resnet": "stages.1"}
    config = changed(tmp_path, without(parts[family]))
    with pytest.raises(ConfigError, match=r"not those of a whole .*ForImageClassification: .* and \d+ more missing"):
        load_model(config, "image-classification", [])


@pytest.mark.parametrize(
    ("saved", "family", "change", "kind"),
    [
        ("causal-lm", "llama", lambda tensors: None, CLASSIFIER),  # lm_head is left over, the head is new
        ("masked-lm", "roberta", lambda tensors: None, CLASSIFIER),
        ("causal-lm", "llama", added("model.layers.0.self_attn.rotary_emb.inv_freq", 4), CAUSAL),  # old checkpoints
        ("masked-lm", "roberta", added("roberta.embeddings.position_ids", 1, 64), "masked-lm"),
        ("masked-lm", "roberta", added("roberta.pooler.dense.weight", 32, 32), "masked-lm"),
        (CLASSIFIER, "roberta", lambda tensors: None, CLASSIFIER),
    ],
)
def test_what_belongs_to_another_head_or_an_old_library_may_be_left_over(tmp_path, saved, family, change, kind):
    folder = save_tiny_folder(tmp_path, family, head=saved)
    assert load_model(changed(folder, change), kind, WORDS) is not None


def test_adapters_and_quantised_weights_are_named(tmp_path):
    folder = save_tiny_folder(tmp_path, "llama")
    config, raw = ModelConfig(name=str(folder)), json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(raw | {"quantization_config": {"quant_method": "foo"}}))
    with pytest.raises(ConfigError, match=r"its weights are quantised \(foo\)"):
        load_model(config, CAUSAL)
    (folder / "config.json").write_text(json.dumps(raw))
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ConfigError, match="an adapter lies beside the model"):
        load_model(config, CAUSAL)
    (folder / "config.json").unlink()
    with pytest.raises(ConfigError, match="the folder holds an adapter"):
        load_model(config, CAUSAL)
