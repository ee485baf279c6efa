"""Which parameters are trained, and a fingerprint that changes with every weight and with nothing else."""

from __future__ import annotations

import pytest
import torch

from hpcfed.errors import ConfigError
from hpcfed.weights import Weights
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
