"""The probe against an explicitly moved model, on five architectures, and its promise: w comes back bit for bit."""

from __future__ import annotations

from collections import namedtuple

import pytest
import torch
from torch import Tensor, nn

from hpcfed.probe.trial import bound_probe
from hpcfed.weights import Weights
from tests.support.probes import MU, check, forward_of, moved
from tests.support.small import tiny_batch, tiny_model

KINDS = ["opt", "llama", "roberta", "vit", "resnet"]


@pytest.mark.parametrize("kind", KINDS)
def test_both_sides_are_those_of_a_moved_model(kind):
    assert check(tiny_model(kind), tiny_batch(kind, rows=5)).mode == "dual"


@pytest.mark.parametrize("kind", KINDS)
def test_two_passes_give_the_same(kind):
    model, inputs = tiny_model(kind), tiny_batch(kind, rows=4)
    probe = bound_probe(inputs, model, forward_of(model), Weights(model), "gaussian")
    dual = probe.logits(inputs, 3, MU)
    probe.mode = "two-pass"
    for a, b in zip(dual, probe.logits(inputs, 3, MU), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["opt", "llama"])
def test_tied_and_untied_heads(kind):
    for tied in (True, False):
        check(tiny_model(kind, tied=tied), tiny_batch(kind))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_weights_come_back_and_sides_are_exact(dtype):
    model, inputs = tiny_model("opt", dtype=dtype), tiny_batch("opt")
    weights = Weights(model)
    before = weights.fingerprint()
    probe = bound_probe(inputs, model, forward_of(model), weights, "rademacher")
    dual = probe.logits(inputs, 3, 0.05)
    probe.mode = "two-pass"
    for a, b in zip(dual, probe.logits(inputs, 3, 0.05), strict=True):
        torch.testing.assert_close(a, b, rtol=5e-2, atol=5e-2)
    assert weights.fingerprint() == before


def test_only_some_parameters_are_perturbed():
    probe = check(tiny_model("roberta"), tiny_batch("roberta"), train_only=["*.layer.1.*"])
    assert probe.mode == "dual" and not probe.late


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_last_layer_tuning_runs_the_trunk_once(kind):
    model, rows = tiny_model(kind), []
    trunk = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
    trunk.register_forward_pre_hook(lambda _, args: rows.append(args[0].shape[0]))
    probe = check(model, tiny_batch(kind, rows=6), train_only=["classifier.*"])
    assert probe.late
    rows.clear()
    probe.logits(tiny_batch(kind, rows=6), 1, MU)
    assert rows == [6]


def test_batches_of_other_lengths_than_the_trial():
    model = tiny_model("opt")  # transformers' OPT flattens its sequences, so rows depend on their length
    probe = bound_probe(tiny_batch("opt", 4, 7), model, forward_of(model), Weights(model), "gaussian")
    for rows, length in ((4, 7), (3, 5), (6, 9)):
        inputs = tiny_batch("opt", rows, length)
        plus, _ = probe.logits(inputs, 7, MU)
        torch.testing.assert_close(plus, forward_of(moved(model, 7, MU))(inputs), rtol=1e-4, atol=1e-5)
    assert probe.mode == "dual"


def test_a_probe_leaves_no_trace_when_the_forward_fails():
    model, inputs = tiny_model("opt"), tiny_batch("opt")
    weights = Weights(model)
    probe = bound_probe(inputs, model, forward_of(model), weights, "gaussian")
    probe.logits(inputs, 1, MU)
    before = weights.fingerprint()
    with pytest.raises(IndexError):
        probe.logits({"input_ids": inputs["input_ids"] + 10_000, "attention_mask": inputs["attention_mask"]}, 1, MU)
    assert weights.fingerprint() == before
    assert not any("forward" in module.__dict__ for module in model.modules())


Pair = namedtuple("Pair", ["x", "y"])


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale, self.inner = nn.Parameter(torch.full((4,), 1.5)), nn.Linear(4, 4)

    def forward(self, x: Tensor, mask: Tensor | None) -> Pair:
        x = self.inner(x) * self.scale
        return Pair(x if mask is None else x * mask, x)


class Awkward(nn.Module):
    """Takes a mask only sometimes and returns a named tuple; patched: one instance has a forward of its own."""

    def __init__(self, patched: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.scaled, self.out = Scaled(), nn.Linear(4, 2)
        if patched:
            plain = self.out.forward
            self.out.forward = lambda x: plain(x) + 1  # as tools that patch modules do
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.out(self.scaled(x, None if bool(mask.all()) else mask).x)


@pytest.mark.parametrize("masked_first", [False, True])
def test_modules_that_behave_otherwise_from_batch_to_batch(masked_first):
    model, mask = Awkward(patched=True), torch.ones(5, 4)
    x, holes = torch.randn(5, 4, generator=torch.Generator().manual_seed(1)), torch.ones(5, 4)
    holes[2, 1] = 0
    before = model(x, mask)
    first = {"x": x, "mask": holes if masked_first else mask}
    probe = bound_probe(first, model, lambda i: model(**i), Weights(model), "gaussian")
    for m in (holes, mask, holes) if masked_first else (mask, holes, mask):
        plus, _ = probe.logits({"x": x, "mask": m}, 7, MU)
        want = moved(Awkward(patched=False), 7, MU)(x, m) + 1
        torch.testing.assert_close(plus, want, rtol=1e-4, atol=1e-5)
    assert torch.equal(model(x, mask), before)
