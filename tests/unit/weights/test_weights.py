"""Which parameters are trained, and a fingerprint that changes with every weight and with nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from hpcfed.errors import ConfigError
from hpcfed.messages import Update
from hpcfed.weights import Weights, apply_
from tests.support.small import tiny_model

KINDS = ["opt", "llama", "roberta", "vit", "resnet"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_and_batch_norm_statistic_counts(kind):
    model = tiny_model(kind)
    found = {Weights(model).fingerprint()}
    tensors = [*model.parameters(), *(b for b in model.buffers() if b.is_floating_point() and b.numel() > 1)]
    for tensor in tensors:
        value = tensor.view(-1)[-1].clone()
        tensor.view(-1)[-1] = torch.nextafter(value, torch.tensor(torch.inf))
        found.add(Weights(model).fingerprint())
        tensor.view(-1)[-1] = value
    buffers_in_state = sum(name in model.state_dict() for name, b in model.named_buffers() if b.is_floating_point())
    assert len(found) == 1 + len(list(model.parameters())) + buffers_in_state
    assert Weights(model).fingerprint() in found


def test_fingerprint_does_not_depend_on_what_is_trained():
    model = tiny_model("vit")
    assert Weights(model).fingerprint() == Weights(model, ["classifier.*"]).fingerprint()


def test_fingerprint_tells_two_parameters_that_swap_values():
    model = tiny_model("roberta")
    before = Weights(model).fingerprint()
    first, second = (p for n, p in model.named_parameters() if n.endswith("LayerNorm.bias") and "layer.0" in n)
    first.data, second.data = second.data, first.data
    assert Weights(model).fingerprint() != before


def test_dtype_counts():
    whole = tiny_model("vit", dtype=torch.bfloat16)
    assert Weights(whole).fingerprint() != Weights(whole.float()).fingerprint()


def test_patterns_pick_parameters():
    model = tiny_model("vit")
    weights = Weights(model, ["classifier.*", "*.layernorm.bias"])
    assert set(weights.params) == {"classifier.weight", "classifier.bias", "vit.layernorm.bias"}
    assert weights.numel == sum(p.numel() for p in weights.params.values())
    assert weights.layout_hash != Weights(model).layout_hash


def test_a_pattern_that_matches_nothing_is_an_error():
    with pytest.raises(ConfigError, match=r"train_only: 'clasifier\.\*' matches no parameter .*classifier\.bias"):
        Weights(tiny_model("vit"), ["clasifier.*"])


def test_a_tied_head_is_one_parameter():
    model = tiny_model("opt", tied=True)
    assert model.lm_head.weight is model.model.decoder.embed_tokens.weight
    names = list(Weights(model).params)
    assert sum("embed_tokens" in n or "lm_head" in n for n in names) == 1


class Renamed(nn.Module):
    """Six weights under names of another version; NAMES: what the checkpoint calls them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(1, 1, bias=False)])
        self.head = nn.Linear(2, 2)
        for i, p in enumerate(self.parameters()):
            p.data.fill_(i + 1)


class Original(nn.Module):
    """The same with the checkpoint's names in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict({"layer": nn.Linear(1, 1, bias=False)})
        self.head = nn.Linear(2, 2)
        for i, p in enumerate(self.parameters()):
            p.data.fill_(i + 1)


NAMES = {"layers.0.weight": "encoder.layer.weight"}


@pytest.mark.parametrize(
    "train_only", [[], ["encoder.*"], ["*layer*"], ["head.*"], ["layers.*"], ["head.bias", "layers.0.*"]]
)
def test_names_in_memory_do_not_matter(train_only: list[str]):
    renamed = Weights(Renamed(), train_only, names=NAMES)
    original = Weights(Original(), renamed.patterns)
    assert renamed.layout_hash == original.layout_hash and renamed.fingerprint() == original.fingerprint()
    for weights in (renamed, original):
        apply_(weights, [moved()], "gaussian", "nearest")
    assert renamed.fingerprint() == original.fingerprint()


def moved() -> Update:
    return Update(np.array([3], np.uint64), np.array([1], np.float32), 0.5)


@pytest.mark.parametrize("train_only", [[], ["layers.*"], ["head.*"]])
def test_what_was_made_by_names_in_memory_is_followed(train_only: list[str]):
    old, new = Weights(Renamed(), train_only), Weights(Renamed(), train_only, names=NAMES)
    assert new.fingerprint() != old.fingerprint()
    new.follow(old.layout_hash)
    if train_only != ["head.*"]:
        assert (new.layout_hash, new.fingerprint(), new.patterns) == (old.layout_hash, old.fingerprint(), old.patterns)
    new.follow("0" * 32)
