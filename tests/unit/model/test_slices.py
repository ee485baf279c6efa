"""A shard's part of a checkpoint is what index_select takes of the whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hpcfed.config import ModelConfig
from hpcfed.model import load_model
from hpcfed.model.slices import Unreadable, _runs, empty_model, fill
from hpcfed.noise.layout import Slice
from tests.support.small import save_tiny_folder, tiny_model


def test_runs() -> None:
    assert _runs(np.array([3, 4, 5, 9, 11, 12])) == [(3, 6), (9, 10), (11, 13)]
    assert _runs(np.array([], np.int64)) == []


@pytest.mark.parametrize("family", ["opt", "llama", "roberta"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_empty_model_is_the_model_without_weights(tmp_path: Any, family: str, dtype: str) -> None:
    config = ModelConfig(name=str(save_tiny_folder(tmp_path, family)), dtype=dtype)  # type: ignore[arg-type]
    kind = "masked-lm" if family == "roberta" else "causal-lm"
    whole, empty = load_model(config, kind), empty_model(config, kind, [])
    assert all(p.is_meta for p in empty.parameters()) and not empty.training
    names = [[(n, p.shape, p.dtype) for n, p in model.named_parameters()] for model in (whole, empty)]
    assert names[0] == names[1]  # ties included
    for (name, a), (other, b) in zip(whole.named_buffers(), empty.named_buffers(), strict=True):
        assert name == other and a.dtype == b.dtype and torch.equal(a, b)


@pytest.mark.parametrize("case", ["other shapes", "no safetensors", "damaged"])
def test_what_cannot_be_read_by_slices(tmp_path: Any, case: str) -> None:
    folder = save_tiny_folder(tmp_path, "llama")
    model = tiny_model("llama")
    file = folder / "model.safetensors"
    if case == "other shapes":
        model.model.norm.weight.data = torch.zeros(3)
    elif case == "no safetensors":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(Unreadable):
        fill(model, {}, ModelConfig(name=str(folder)), "causal-lm")


def parts_of(model: nn.Module) -> dict[str, Slice]:
    """Some rows of some matrices and some columns of others, in one run or in two."""
    matrices = [(name, p) for name, p in model.named_parameters() if p.dim() == 2 and "embed" not in name]
    found = {}
    for i, (name, p) in enumerate(matrices):
        dim, n = i % 2, p.shape[i % 2]
        index = np.arange(n // 4, n // 2) if i % 3 else np.r_[1 : n // 4, n // 2 : n - 1]
        found[name] = Slice(tuple(p.shape), dim, index)
    return found


def with_memory(model: nn.Module, slices: dict[str, Slice]) -> nn.Module:
    """The empty model, its parameters full of -7 in the shapes of this shard; what was tied stays so."""
    made: dict[int, nn.Parameter] = {}
    for name, p in list(model.named_parameters(remove_duplicate=False)):
        shape = list(p.shape)
        if name in slices:
            shape[slices[name].dim] = len(slices[name].index)
        holder, _, attribute = name.rpartition(".")
        new = made.setdefault(id(p), nn.Parameter(torch.full(shape, -7, dtype=p.dtype), requires_grad=False))
        model.get_submodule(holder)._parameters[attribute] = new
    return model


@pytest.mark.parametrize("size", ["5GB", "20KB"])
@pytest.mark.parametrize("family", ["opt", "llama", "roberta"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_shards_part_is_read_from_one_file_or_many(tmp_path: Any, family: str, dtype: str, size: str) -> None:
    saved = tiny_model(family)
    saved.save_pretrained(tmp_path, max_shard_size=size)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 2) == (size == "20KB")
    config = ModelConfig(name=str(tmp_path), dtype=dtype)  # type: ignore[arg-type]
    kind = "masked-lm" if family == "roberta" else "causal-lm"
    slices = parts_of(saved)
    model = with_memory(empty_model(config, kind, []), slices)
    fill(model, slices, config, kind)
    whole = dict(load_model(config, kind).named_parameters())
    assert len(slices) > 10 and {part.dim for part in slices.values()} == {0, 1}
    for name, p in model.named_parameters():
        want = whole[name]
        if name in slices:
            want = want.index_select(slices[name].dim, torch.from_numpy(slices[name].index))
        assert p.dtype == want.dtype and torch.equal(p, want), name


def test_batch_norm_statistics_are_read_too(tmp_path: Any) -> None:
    config = ModelConfig(name=str(save_tiny_folder(tmp_path, "resnet")))
    model = with_memory(empty_model(config, "image-classification", ["a", "b"]), {})
    fill(model, {}, config, "image-classification")
    for (name, a), (other, b) in zip(
        model.state_dict().items(), tiny_model("resnet").state_dict().items(), strict=True
    ):
        assert name == other and torch.equal(a, b), name


def test_a_classifiers_new_head_is_the_one_of_a_whole_model(tmp_path: Any) -> None:
    """Also under a base model's name: the checkpoint of a language model has the same trunk."""
    folder = save_tiny_folder(tmp_path, "roberta")
    config, kind, labels = ModelConfig(name=str(folder)), "sequence-classification", ["a", "b", "c"]
    model = with_memory(empty_model(config, kind, labels), {})
    fill(model, {}, config, kind)
    whole = load_model(config, kind, labels)
    for (name, a), (other, b) in zip(model.named_parameters(), whole.named_parameters(), strict=True):
        assert name == other and torch.equal(a, b), name
    new = {"classifier.out_proj.weight": Slice((3, 32), 1, np.arange(4))}  # a shard cannot have a part of what is new
    with pytest.raises(Unreadable):
        fill(with_memory(empty_model(config, kind, labels), new), new, config, kind)
