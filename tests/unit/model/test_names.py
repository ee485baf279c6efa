"""Parameters are called as their tensors in the checkpoint, whatever they are called in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as t
from safetensors.torch import load_file, save_file
from torch import nn

from hpcfed.model import checkpoint_names

TEXT = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
IMAGE = {"image_size": 8, "patch_size": 2, "num_channels": 1}
VIT = {**IMAGE, **{key: TEXT[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers")}}
FAMILIES: dict[str, Any] = {
    "opt": lambda: t.OPTForCausalLM(
        t.OPTConfig(vocab_size=64, hidden_size=16, word_embed_proj_dim=16, ffn_dim=16, num_hidden_layers=2,
                    num_attention_heads=2)
    ),
    "llama": lambda: t.LlamaForCausalLM(t.LlamaConfig(**TEXT)),
    "gpt2": lambda: t.GPT2LMHeadModel(t.GPT2Config(vocab_size=64, n_embd=16, n_layer=2, n_head=2)),
    "gpt_neox": lambda: t.GPTNeoXForCausalLM(t.GPTNeoXConfig(**TEXT)),
    "roberta": lambda: t.RobertaForMaskedLM(t.RobertaConfig(**TEXT)),
    "xlm-roberta": lambda: t.XLMRobertaForMaskedLM(t.XLMRobertaConfig(**TEXT, tie_word_embeddings=True)),
    "vit": lambda: t.ViTForImageClassification(t.ViTConfig(**VIT, num_attention_heads=2)),
    "beit": lambda: t.BeitForImageClassification(t.BeitConfig(**VIT, num_attention_heads=2)),
    "swin": lambda: t.SwinForImageClassification(
        t.SwinConfig(**IMAGE, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=2)
    ),
    "resnet": lambda: t.ResNetForImageClassification(
        t.ResNetConfig(num_channels=1, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_names_are_those_of_the_file(tmp_path: Path, family: str):
    FAMILIES[family]().save_pretrained(tmp_path)
    auto = {"roberta": "MaskedLM", "xlm-roberta": "MaskedLM"}.get(family, "CausalLM")
    image = family in ("vit", "beit", "swin", "resnet")
    model = getattr(t, "AutoModelForImageClassification" if image else f"AutoModelFor{auto}").from_pretrained(tmp_path)
    names, file = checkpoint_names(model), load_file(tmp_path / "model.safetensors")
    assert set(names.values()) == set(file)
    state = model.state_dict()
    assert all(torch.equal(state[name], file[key]) for name, key in names.items())
    if family in ("opt", "llama", "gpt2", "roberta", "resnet"):
        assert all(name == key for name, key in names.items())


def test_a_file_of_the_trunk_alone_gives_the_same_names(tmp_path: Path):
    FAMILIES["vit"]().save_pretrained(tmp_path)
    whole = checkpoint_names(t.ViTForImageClassification.from_pretrained(tmp_path))
    trunk = {k.removeprefix("vit."): v for k, v in load_file(tmp_path / "model.safetensors").items() if "vit." in k}
    save_file(trunk, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert checkpoint_names(t.ViTForImageClassification.from_pretrained(tmp_path)) == whole


def test_merged_experts_keep_their_names_in_memory(tmp_path: Path):
    t.MixtralForCausalLM(t.MixtralConfig(**TEXT, num_key_value_heads=2, num_local_experts=2)).save_pretrained(tmp_path)
    names = checkpoint_names(t.AutoModelForCausalLM.from_pretrained(tmp_path))
    assert all(name == key for name, key in names.items() if "experts" in name)
    assert any("experts" in name for name in names) and len(set(names.values())) == len(names)


def test_other_models_are_called_as_they_are():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    assert checkpoint_names(model) == {name: name for name in model.state_dict()}
