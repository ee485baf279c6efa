"""The probe on shapes alone finds and allocates what the real one does, and counts what the real one draws."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from hpcfed.clock import Clock
from hpcfed.plan.meter import Meter
from hpcfed.probe import Probe, draws
from hpcfed.probe.draws import Draws, Pass
from hpcfed.probe.shadow import ShadowDraws, bind_shapes
from hpcfed.probe.trial import bind
from hpcfed.weights import Weights
from tests.support.probes import MU, forward_of
from tests.support.small import tiny_batch, tiny_model

KINDS = ["opt", "llama", "roberta", "vit", "resnet"]


class Counted(Draws):
    """Draws, and how many elements of z."""

    drawn = 0

    def perturbed(self, w, piece, plus, minus, p, rows=None):
        self.drawn += plus.numel()
        return super().perturbed(w, piece, plus, minus, p, rows)


def both(kind: str, train_only=()) -> tuple[Probe, Counted, Probe, ShadowDraws]:
    """A real probe after a pass, and its shadow after one; each with its draws, which counted that pass."""
    model, shadow, inputs = tiny_model(kind), tiny_model(kind).to("meta"), tiny_batch(kind)
    counted, shadowed = Counted("gaussian", Clock()), ShadowDraws("gaussian", "cpu")
    real = Probe(model, forward_of(model), Weights(model, train_only), "gaussian", draws=counted)
    bind(real, inputs)
    outline = Probe(shadow, forward_of(shadow), Weights(shadow, train_only), "gaussian", draws=shadowed)
    on_meta = {name: x.to("meta") for name, x in inputs.items()}
    with Meter([]).measuring():  # which says what shapes alone do not: that the batch is padded
        bind_shapes(outline, on_meta)
        counted.drawn = shadowed.drawn = 0
        plus, _ = real.logits(inputs, 3, MU)
        assert outline.logits(on_meta, 3, MU)[0].shape == plus.shape
    return real, counted, outline, shadowed


@pytest.mark.parametrize("kind", KINDS)
def test_what_shapes_tell_is_what_a_trial_finds(kind):
    real, counted, outline, shadowed = both(kind)
    assert (outline.mode, outline.late) == (real.mode, real.late) == ("dual", False)
    ours, theirs = ([owner.module for owner in probe.owners] for probe in (outline, real))
    names = [{module: path for path, module in probe.model.named_modules()} for probe in (outline, real)]
    assert [names[0][module] for module in ours] == [names[1][module] for module in theirs]
    scratch = [sorted(x.numel() for x in d.all_scratch(p.owners)) for d, p in ((shadowed, outline), (counted, real))]
    assert scratch[0] == scratch[1]


@pytest.mark.parametrize(
    ("kind", "train_only", "inside"),
    [("resnet", (), 0), ("vit", (), 2 * 2 * 32 + 32), ("vit", ("classifier.*",), 0)],  # patches lie in another owner
)
def test_it_counts_the_elements_that_the_real_one_draws(kind, train_only, inside):
    """Each once; of owners inside an owner once a side."""
    real, counted, outline, shadowed = both(kind, train_only)
    assert shadowed.drawn == counted.drawn == real.weights.numel + inside
    assert outline.late == real.late == bool(train_only)


@pytest.mark.parametrize("kind", ["opt", "llama", "roberta"])
def test_rows_that_are_looked_up_are_counted_as_if_none_came_twice(kind):
    real, counted, _, shadowed = both(kind)
    twice: list[int] = []

    def note(table: nn.Embedding, args: tuple[Tensor, ...]) -> None:
        looked_up = min(args[0].numel(), table.num_embeddings)
        twice.append(table.embedding_dim * (looked_up - len(args[0].unique())))

    for module in real.model.modules():
        if type(module) is nn.Embedding:  # OPT's positions are a kind of their own, and drawn whole
            module.register_forward_pre_hook(note)
    real.forward(tiny_batch(kind))
    assert shadowed.drawn - counted.drawn == sum(twice) > 0


def test_how_many_rows_are_looked_up():
    ids, table = [torch.empty(4, 7, dtype=torch.int64, device="meta")] * 2, torch.empty(20, 3, device="meta")
    large = torch.empty(500, 3, device="meta")
    for device, short, long in (("cpu", 20, 28), ("cuda", 56, 56)):  # there a row a token of both sides
        drawing = ShadowDraws("gaussian", device)
        assert [len(drawing.looked_up(ids, t)[0]) for t in (table, large)] == [short, long]
        assert drawing.looked_up(ids, table)[1].shape == (8, 7)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_layer_takes_scratch_for_a_block_on_the_device_it_stands_for(monkeypatch, device):
    monkeypatch.setattr(draws, "BLOCK", {"cpu": 60, "cuda": 200})
    monkeypatch.setattr("hpcfed.probe.shadow.BLOCK", draws.BLOCK)
    model = nn.Linear(6, 50, bias=False, device="meta").requires_grad_(False)
    drawing = ShadowDraws("gaussian", device)
    probe = Probe(model, lambda i: model(i["x"]), Weights(model), "gaussian", draws=drawing)
    bind_shapes(probe, {"x": torch.empty(2, 6, device="meta")})
    drawing.drawn = 0
    probe.two_passes({"x": torch.empty(2, 6, device="meta")}, Pass(1, MU))
    assert drawing.drawn == 2 * 300  # a draw a side
    assert [x.numel() for x in drawing.all_scratch(probe.owners)] == [{"cpu": 60, "cuda": 150}[device]] * 2
