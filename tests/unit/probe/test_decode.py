"""Decoding on both sides against models whose weights were really moved there."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.models.opt.modeling_opt import OPTAttention

from hpcfed.model.decode import make_generate
from hpcfed.model.head import make_forward
from hpcfed.probe.decode import decode_sides
from hpcfed.probe.trial import bound_probe
from hpcfed.transport.row import Row
from hpcfed.weights import Weights
from tests.support.probes import moved
from tests.support.written import WRITERS, prompts, writer

MU, SEED, MOST = 0.05, 7, 10


def bound(model, inputs, train_only=()):
    return bound_probe(inputs, model, make_forward(model, Row()), Weights(model, train_only), "gaussian")


def expected(model, inputs, stop=frozenset(), train_only=()):
    """Of copies of the model that hold w + mu z and w - mu z."""
    return tuple(make_generate(moved(model, SEED, mu, train_only), Row())(inputs, MOST, stop) for mu in (MU, -MU))


@pytest.mark.parametrize("family", WRITERS)
def test_both_sides_write_what_moved_models_do(family):
    model, inputs = writer(family), prompts(8)
    probe = bound(model, inputs)
    before, read = probe.weights.fingerprint(), []
    hook = next(m for m in model.modules() if isinstance(m, nn.LayerNorm) or "Norm" in type(m).__name__)
    hook.register_forward_pre_hook(lambda _, args: read.append(args[0].shape[0] // 8))
    decode_sides(probe, inputs, SEED, MU, MOST, frozenset())  # with the trial of model/decode.py
    read.clear()
    plus, minus = decode_sides(probe, inputs, SEED, MU, MOST, frozenset())
    assert set(read) == {2} and len(read) == MOST  # one pass a token for both sides
    assert (plus, minus) == expected(model, inputs) and plus != minus
    for i in (0, 3, 7):
        one = decode_sides(probe, {name: x[i : i + 1] for name, x in inputs.items()}, SEED, MU, MOST, frozenset())
        assert one == ([plus[i]], [minus[i]])
    stop = frozenset({plus[0][3], minus[1][0], minus[2][6]})
    assert decode_sides(probe, inputs, SEED, MU, MOST, stop) == expected(model, inputs, stop)
    assert decode_sides(probe, inputs, SEED, MU, MOST, stop, padding=False) == expected(model, inputs, stop)
    assert probe.weights.fingerprint() == before
    assert not any("forward" in module.__dict__ for module in model.modules())
    probe.mode = "two-pass"
    assert decode_sides(probe, inputs, SEED, MU, MOST, frozenset()) == (plus, minus)


@pytest.mark.parametrize("family", WRITERS)
def test_a_batch_that_a_probe_doubles_late_is_doubled_at_once(family):
    """What is written differs from the first token on, so everything after it does."""
    model, inputs = writer(family), prompts(5)
    only = [{"opt": "*.decoder.final_layer_norm.*", "llama": "model.norm.*", "gpt2": "*.ln_f.*"}[family]]
    probe = bound(model, inputs, only)
    single = [set(owner.single) for owner in probe.owners]
    assert probe.late and any(single)
    assert decode_sides(probe, inputs, SEED, MU, MOST, frozenset()) == expected(model, inputs, train_only=only)
    assert [owner.single for owner in probe.owners] == single


def test_some_layers_of_a_model():
    model, inputs, only = writer("opt"), prompts(5), ["*.layers.1.*"]
    found = decode_sides(bound(model, inputs, only), inputs, SEED, MU, MOST, frozenset())
    assert found == expected(model, inputs, train_only=only)


class Gained(OPTAttention):
    """Attention that reads a parameter of its own, so that it is an owner with children and a cache."""

    def forward(self, *args, **kwargs):
        out, *rest = super().forward(*args, **kwargs)
        return (out * self.gain, *rest)


def test_an_owner_around_a_cache_is_decoded_once_a_side():
    model, inputs = writer("opt"), prompts(4)
    attention = model.model.decoder.layers[1].self_attn
    attention.__class__, attention.gain = Gained, nn.Parameter(torch.linspace(1, 2, 32), requires_grad=False)
    probe = bound(model, inputs)
    assert probe.mode == "dual" and any(owner.module is attention for owner in probe.owners)
    assert decode_sides(probe, inputs, SEED, MU, MOST, frozenset()) == expected(model, inputs)


def test_a_part_of_the_head_writes_nothing():
    model, inputs = writer("opt"), prompts(2)
    forward = make_forward(model, Row(), head_rows=[5, 6])
    probe = bound_probe(inputs, model, forward, Weights(model), "gaussian")
    with pytest.raises(AssertionError, match="a part of the head"):
        decode_sides(probe, inputs, SEED, MU, MOST, frozenset())
