"""The probe against an explicitly moved model, on five architectures, and its promise: w comes back bit for bit."""

from __future__ import annotations

import copy
from collections import namedtuple

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn

from hpcfed.errors import DivergedError
from hpcfed.messages import Update
from hpcfed.model.head import restrict_head
from hpcfed.noise import fill_
from hpcfed.probe import Probe
from hpcfed.probe.slopes import slopes_of
from hpcfed.probe.trial import bound_probe
from hpcfed.tasks.base import Batch
from hpcfed.weights import Weights, apply_
from tests.support.small import tiny_batch, tiny_model

KINDS = ["opt", "llama", "roberta", "vit", "resnet"]
MU = 0.01


def forward_of(model: nn.Module):
    return lambda inputs: model(**inputs).logits


def moved(model: nn.Module, seed: int, mu: float, train_only=()) -> nn.Module:
    """Oracle: a copy of the model with w + mu z written into it."""
    other = copy.deepcopy(model)
    weights = Weights(other, train_only)
    for name, p in weights.params.items():
        z = torch.empty_like(p)
        fill_(z, seed, weights.pieces[name], "gaussian")
        p.data.add_(mu * z)
    return other


def check(model: nn.Module, inputs: dict[str, Tensor], train_only=(), seed: int = 7) -> Probe:
    weights = Weights(model, train_only)
    before = weights.fingerprint()
    probe = bound_probe(inputs, model, forward_of(model), weights, "gaussian")
    plus, minus = probe.logits(inputs, seed, MU)
    with torch.inference_mode():
        for got, mu in ((plus, MU), (minus, -MU)):
            want = forward_of(moved(model, seed, mu, train_only))(inputs)
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
        assert (plus - minus).abs().max() > 1e-4  # otherwise the comparison proves nothing
    assert weights.fingerprint() == before
    return probe


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


@pytest.mark.parametrize("kind", ["opt", "roberta"])
def test_restricted_head_scores_the_same_words(kind):
    words = [11, 7, 30]
    whole, part = tiny_model(kind), tiny_model(kind)
    assert restrict_head(part, words)
    assert Weights(whole).layout_hash == Weights(part).layout_hash
    assert Weights(whole).fingerprint() == Weights(part).fingerprint()
    inputs = tiny_batch(kind)
    sides = [bound_probe(inputs, m, forward_of(m), Weights(m), "gaussian").logits(inputs, 5, MU) for m in (whole, part)]
    for a, b in zip(*sides, strict=True):
        torch.testing.assert_close(a[..., words], b, rtol=1e-4, atol=1e-5)
    with torch.inference_mode():
        torch.testing.assert_close(forward_of(whole)(inputs)[..., words], forward_of(part)(inputs))


def real_tokens(inputs: dict[str, Tensor]) -> Tensor:
    return inputs["attention_mask"].flatten().nonzero().squeeze(1)


@pytest.mark.parametrize("mode", ["dual", "two-pass"])
@pytest.mark.parametrize("kind", ["opt", "llama", "roberta"])
def test_products_leave_padding_out_and_real_tokens_do_not_notice(kind, mode):
    model, inputs = tiny_model(kind), tiny_batch(kind, rows=6, length=9)
    probe, seen = (
        bound_probe(inputs, model, forward_of(model), Weights(model), "gaussian"),
        inputs["attention_mask"] == 1,
    )
    assert probe.mode == "dual" and probe.packs
    probe.mode = mode
    whole = probe.logits(inputs, 3, MU)
    packed = probe.logits(inputs, 3, MU, real_tokens(inputs))
    for a, b in zip(packed, whole, strict=True):
        torch.testing.assert_close(a[seen], b[seen], rtol=1e-4, atol=1e-5)
        assert not torch.equal(a[~seen], b[~seen])  # padding was not multiplied


def test_a_table_with_as_many_rows_as_there_are_tokens_is_no_batch():
    """As relative positions in DeBERTa, which go through the layer that tokens go through."""

    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.embedding, self.key, self.out = nn.Embedding(512, 8), nn.Linear(8, 8), nn.Linear(8, 3)
            self.register_buffer("table", torch.randn(1, 54, 8))
            self.eval().requires_grad_(False)

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            keys = self.key(self.embedding(input_ids)) + self.key(self.table)[:, 9:10]  # where the batch has padding
            return self.out(keys.tanh() * attention_mask[..., None])

    model, inputs = Table(), tiny_batch("opt", rows=6, length=9)
    probe, seen = (
        bound_probe(inputs, model, lambda i: model(**i), Weights(model), "gaussian"),
        inputs["attention_mask"] == 1,
    )
    plus, _ = probe.logits(inputs, 7, MU, real_tokens(inputs))
    assert probe.packs and not seen.flatten()[9]
    torch.testing.assert_close(plus[seen], moved(model, 7, MU)(**inputs)[seen], rtol=1e-4, atol=1e-5)


def test_padding_is_multiplied_where_the_model_reads_it():
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.embedding, self.fc, self.out = nn.Embedding(512, 8), nn.Linear(8, 8), nn.Linear(8, 3)
            self.eval().requires_grad_(False)

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            return self.out(self.fc(self.embedding(input_ids)).tanh().mean(1))

    model, inputs = Mean(), tiny_batch("opt", rows=6, length=9)
    probe = bound_probe(inputs, model, lambda i: model(**i), Weights(model), "gaussian")
    plus, _ = probe.logits(inputs, 7, MU, real_tokens(inputs))
    assert probe.mode == "dual" and not probe.packs
    torch.testing.assert_close(plus, moved(model, 7, MU)(**inputs), rtol=1e-4, atol=1e-5)


class ReadsItsChild(nn.Module):
    """Reads its child's weight, as torch's MultiheadAttention does; transposed: the batch comes second."""

    def __init__(self, transposed: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=not transposed)
        self.embedding, self.out, self.unused = nn.Embedding(20, 8), nn.Linear(8, 3), nn.Linear(4, 4)
        self.scale, self.transposed = nn.Parameter(torch.ones(8)), transposed
        self.eval().requires_grad_(False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids) * self.scale
        x = x.transpose(0, 1) if self.transposed else x
        x = self.out(self.attention(x, x, x, need_weights=False)[0])
        return (x.transpose(0, 1) if self.transposed else x) @ self.embedding.weight[:3]


@pytest.mark.parametrize("transposed", [False, True])
def test_parameters_read_by_a_parent_and_batches_that_are_not_first(transposed):
    model = ReadsItsChild(transposed)
    weights = Weights(model)
    inputs = {"ids": torch.arange(30).reshape(5, 6) % 20}
    probe = bound_probe(inputs, model, lambda i: model(**i), weights, "gaussian")
    plus, minus = probe.logits(inputs, 7, MU)
    for got, mu in ((plus, MU), (minus, -MU)):
        torch.testing.assert_close(got, moved(model, 7, mu)(**inputs), rtol=1e-4, atol=1e-5)
    assert weights.fingerprint() == Weights(model).fingerprint()


def test_a_transposed_layer_alone_is_run_in_two_passes():
    class Transposed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.rnn, self.out = nn.Linear(4, 4), nn.Linear(4, 2)
            self.eval().requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.rnn(x.transpose(0, 1)).tanh().mean(0))

    model = Transposed()
    inputs = {"x": torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(1))}
    probe = bound_probe(inputs, model, lambda i: model(**i), Weights(model), "gaussian")
    plus, _ = probe.logits(inputs, 7, MU)
    assert probe.mode == "two-pass"
    torch.testing.assert_close(plus, moved(model, 7, MU)(**inputs), rtol=1e-4, atol=1e-5)


def cross_entropy(logits: Tensor, batch: Batch) -> Tensor:
    return nn.functional.cross_entropy(logits.float(), batch.label, reduction="none")


def test_batches_of_other_lengths_than_the_trial():
    model = tiny_model("opt")  # transformers' OPT flattens its sequences, so rows depend on their length
    probe = bound_probe(tiny_batch("opt", 4, 7), model, forward_of(model), Weights(model), "gaussian")
    for rows, length in ((4, 7), (3, 5), (6, 9)):
        inputs = tiny_batch("opt", rows, length)
        plus, _ = probe.logits(inputs, 7, MU)
        torch.testing.assert_close(plus, forward_of(moved(model, 7, MU))(inputs), rtol=1e-4, atol=1e-5)
    assert probe.mode == "dual"


def test_slopes_are_central_differences_of_each_clients_mean_loss():
    model, inputs = tiny_model("vit"), tiny_batch("vit", rows=7)
    batch, slot = Batch(inputs, torch.tensor([0, 1, 0, 1, 1, 0, 0])), np.array([0, 0, 1, 1, 1, 2, 2])
    probe = bound_probe(inputs, model, forward_of(model), Weights(model), "gaussian")
    found, level = slopes_of(probe, cross_entropy, [(batch, slot)], 3, [4, 9], MU)
    for j, seed in enumerate((4, 9)):
        up, down = (cross_entropy(forward_of(moved(model, seed, mu))(inputs), batch) for mu in (MU, -MU))
        for k in range(3):
            mine = torch.from_numpy(slot == k)
            want = (up[mine].mean() - down[mine].mean()) / (2 * MU)
            assert found[k, j] == pytest.approx(
                float(want), rel=1e-2, abs=1e-3
            )  # a difference of float32 losses / 2 mu
    plain = cross_entropy(forward_of(model)(inputs), batch)
    assert level == pytest.approx(
        [float(plain[torch.from_numpy(slot == k)].mean()) for k in range(3)], rel=0.1, abs=0.01
    )


def test_micro_batches_give_the_same_slopes():
    model, inputs = tiny_model("opt", head="sequence-classification"), tiny_batch("opt", rows=6)
    labels, slot = torch.tensor([0, 1, 0, 1, 1, 0]), np.array([0, 0, 0, 1, 1, 1])
    probe = bound_probe(inputs, model, forward_of(model), Weights(model), "gaussian")
    whole, _ = slopes_of(probe, cross_entropy, [(Batch(inputs, labels), slot)], 2, [1], MU)
    cuts = [slice(0, 2), slice(2, 5), slice(5, 6)]
    parts = [(Batch({k: v[c] for k, v in inputs.items()}, labels[c]), slot[c]) for c in cuts]
    cut, _ = slopes_of(probe, cross_entropy, parts, 2, [1], MU)
    np.testing.assert_allclose(cut, whole, rtol=1e-2, atol=1e-3)


def test_a_loss_that_is_not_finite_shows_as_a_slope_that_is_not():
    model, inputs = tiny_model("vit"), tiny_batch("vit", rows=4)
    inputs["pixel_values"][3] = torch.nan
    probe = bound_probe(inputs, model, forward_of(model), Weights(model), "gaussian")
    batch = Batch(inputs, torch.tensor([0, 1, 0, 1]))
    found, _ = slopes_of(probe, cross_entropy, [(batch, np.array([0, 0, 1, 1]))], 2, [1], MU)
    assert np.isfinite(found[0, 0]) and not np.isfinite(found[1, 0])


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


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_many_updates_in_one_call_are_as_many_calls(dtype, rounding):
    one, many = tiny_model("roberta", dtype=dtype), tiny_model("roberta", dtype=dtype)
    updates = [Update(np.array([s, s + 100], np.uint64), np.array([1e-2, -1e-3], np.float32), 1.0) for s in range(5)]
    apply_(Weights(many), updates, "gaussian", rounding)
    for update in updates:
        apply_(Weights(one), [update], "gaussian", rounding)
    assert (
        Weights(one).fingerprint()
        == Weights(many).fingerprint()
        != Weights(tiny_model("roberta", dtype=dtype)).fingerprint()
    )


@pytest.mark.parametrize("kind", ["bert", "albert"])
def test_position_tables_and_layers_that_run_twice(kind):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.AutoConfig.for_model(kind, **sizes, vocab_size=64, max_position_embeddings=16)
    model = transformers.AutoModelForSequenceClassification.from_config(config).eval().requires_grad_(False)
    for p in model.parameters():
        p.data.add_(0.2 * torch.randn(p.shape))
    ids = torch.randint(3, 60, (5, 7))
    assert check(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}).mode == "dual"


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


def test_many_parameters_read_by_their_parents_are_found_quickly():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    model = nn.Sequential(nn.Linear(4, 8), nn.TransformerEncoder(layer, 2), nn.Flatten(), nn.Linear(24, 2))
    model.eval().requires_grad_(False)
    calls = []
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    inputs = {"x": torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(1))}
    probe = bound_probe(inputs, model, lambda i: model(i["x"]), Weights(model), "gaussian")
    plus, _ = probe.logits(inputs, 7, MU)
    torch.testing.assert_close(plus, moved(model, 7, MU)(inputs["x"]), rtol=1e-4, atol=1e-5)
    assert len(calls) < 4 * len(list(model.parameters()))


def test_a_base_model_that_is_not_finite_is_refused():
    model = tiny_model("vit")
    model.classifier.bias[0] = torch.nan
    with pytest.raises(DivergedError, match="not finite"):
        bound_probe(tiny_batch("vit"), model, forward_of(model), Weights(model), "gaussian")
