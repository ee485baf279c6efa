"""Loading: what comes back, new heads that are the same everywhere, and folders that hold no such model."""

from __future__ import annotations

import json

import huggingface_hub
import numpy as np
import pytest
import torch

from hpcfed.config import ModelConfig
from hpcfed.errors import ConfigError
from hpcfed.model import HEAD_STD, load_model, load_processor, model_kind
from hpcfed.noise import fill_
from hpcfed.noise.layout import Piece
from hpcfed.seeds import derive
from tests.support.small import CLASSES, save_tiny_folder, tiny_batch, tiny_model


def config(folder, **settings):
    return ModelConfig(name=str(folder), **settings)


@pytest.mark.parametrize(("kind", "head"), CLASSES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_what_was_saved_comes_back_ready_to_be_probed(tmp_path, kind, head, dtype):
    folder = save_tiny_folder(tmp_path, kind, head, labels=3)
    assert model_kind(config(folder)) == head
    model = load_model(config(folder, dtype=dtype), head, ["a", "b", "c"])
    saved = tiny_model(kind, head, labels=3).to(getattr(torch, dtype))
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), saved.parameters(), strict=True))
    assert {p.dtype for p in model.parameters()} == {getattr(torch, dtype)}
    if kind == "opt":
        assert model.config.use_cache is False and model.config._attn_implementation == "sdpa"
    if head == "causal-lm" and kind == "opt":
        assert model.lm_head.weight is model.get_input_embeddings().weight


@pytest.mark.parametrize(
    ("kind", "head", "name"),
    [("vit", None, "classifier.weight"), ("resnet", None, "classifier.1.weight"), ("opt", None, "score.weight"),
     ("roberta", "sequence-classification", "classifier.out_proj.weight")],
)  # fmt: skip
def test_a_new_head_is_a_function_of_its_name_alone(tmp_path, kind, head, name):
    folder = save_tiny_folder(tmp_path, kind, head)
    as_kind = "image-classification" if kind in ("vit", "resnet") else "sequence-classification"
    labels = ["a", "b", "c", "d", "e"]
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    first = load_model(config(folder), as_kind, labels)
    assert torch.equal(torch.random.get_rng_state(), state)  # loading does not touch anybody's generator
    torch.manual_seed(2)
    second = load_model(config(folder), as_kind, labels)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    weight = first.get_parameter(name)
    z = torch.empty(weight.numel())
    fill_(z, derive(0, "head"), Piece.whole(name, weight.numel()), "gaussian")
    assert weight.shape[0] == 5 and torch.equal(weight.flatten(), HEAD_STD * z)
    assert first.config.id2label == dict(enumerate(labels))
    if name.replace("weight", "bias") in dict(first.named_parameters()):
        assert not first.get_parameter(name.replace("weight", "bias")).any()
    inputs = tiny_batch(kind)
    inputs.pop("position_ids", None)
    with torch.no_grad():
        assert first(**inputs).logits.shape == (4, 5)


def test_the_trunk_under_a_new_head_is_the_checkpoints(tmp_path):
    model = load_model(config(save_tiny_folder(tmp_path, "vit")), "image-classification", ["a", "b", "c"])
    saved = dict(tiny_model("vit").named_parameters())
    for name, parameter in model.named_parameters():
        assert name.startswith("classifier") or torch.equal(parameter, saved[name])


def test_the_shipped_model():
    shipped = ModelConfig(name="digits-vit")
    assert model_kind(shipped) == "image-classification"
    model = load_model(shipped, "image-classification", [str(i) for i in range(10)])
    assert model.config.num_labels == 10 and sum(p.numel() for p in model.parameters()) < 100_000


def test_a_folder_that_is_no_model_says_why(tmp_path, monkeypatch):
    good = save_tiny_folder(tmp_path, "opt")
    with pytest.raises(ConfigError, match=r"no such folder"):
        model_kind(config(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match=r"is a file"):
        model_kind(config(good / "config.json"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"no config\.json"):
        model_kind(config(tmp_path / "empty"))
    weights = good / "model.safetensors"
    raw = weights.read_bytes()
    weights.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(ConfigError, match=r"its weights cannot be loaded"):
        load_model(config(good), "causal-lm")
    weights.rename(good / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"only pytorch_model\.bin: .*save_pretrained"):
        load_model(config(good), "causal-lm")
    (good / "config.json").write_text("{not json")
    with pytest.raises(ConfigError, match=r"its configuration cannot be loaded"):
        model_kind(config(good))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=r"cannot be loaded from the hub .*--set model\.name=PATH"):
        model_kind(ModelConfig(name="facebook/opt-of-nobody"))


def test_missing_language_model_heads_and_wrong_shapes_are_refused(tmp_path):
    classifier = save_tiny_folder(tmp_path, "llama", head="sequence-classification")
    with pytest.raises(ConfigError, match=r"not those of a whole LlamaForCausalLM: lm_head\.weight"):
        load_model(config(classifier), "causal-lm")
    vit = save_tiny_folder(tmp_path, "vit")
    with pytest.raises(ConfigError, match="vit models have no causal-lm form"):
        load_model(config(vit), "causal-lm")
    raw = json.loads((vit / "config.json").read_text())
    (vit / "config.json").write_text(json.dumps(raw | {"hidden_size": 64}))
    with pytest.raises(ConfigError, match=r"not those of a whole ViTForImageClassification"):
        load_model(config(vit), "image-classification", ["a", "b"])


def test_what_an_image_model_wants_of_its_images(tmp_path):
    folder = save_tiny_folder(tmp_path, "vit")
    plain = load_processor(config(folder), "image-classification")
    assert (plain.height, plain.width, plain.channels) == (8, 8, 1) and plain.mean == plain.std == [0.5]
    file = folder / "preprocessor_config.json"

    def processor(**raw):
        file.write_text(json.dumps(raw))
        return load_processor(config(folder), "image-classification")

    found = processor(size={"height": 6, "width": 4}, image_mean=[0.1], image_std=[0.2], resample=3)
    assert (found.height, found.width) == (6, 4) and found.mean == [np.float32(0.1)] and found.std == [np.float32(0.2)]
    assert processor(size=16, do_normalize=False).std == [1.0]
    with pytest.raises(ConfigError, match=r"image_mean .* is for 3 channels, not 1"):
        processor(size=8, image_mean=[0.1, 0.2, 0.3], image_std=[0.1, 0.2, 0.3])
    for text in ("{", "[]", json.dumps({"size": None, "image_processor_type": "Nobody"})):
        file.write_text(text)
        with pytest.raises(ConfigError, match=r"preprocessor_config\.json cannot be loaded"):
            load_processor(config(folder), "image-classification")
