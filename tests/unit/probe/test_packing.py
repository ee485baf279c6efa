"""Products of linear layers leave padding out, and give real tokens what they gave before."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from hpcfed.probe.packing import Packing
from hpcfed.probe.trial import bound_probe
from hpcfed.weights import Weights
from tests.support.probes import MU, forward_of, moved, real_tokens
from tests.support.small import tiny_batch, tiny_model


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


def masks() -> st.SearchStrategy[Tensor]:
    """Of some rows and tokens, with one real token at least."""
    shapes = st.tuples(st.integers(1, 5), st.integers(1, 6))
    bits = shapes.flatmap(
        lambda s: st.lists(st.booleans(), min_size=s[0] * s[1], max_size=s[0] * s[1]).map(lambda b: (s, b))
    )
    return bits.filter(lambda both: any(both[1])).map(lambda both: torch.tensor(both[1]).view(both[0]))


@given(masks(), st.sampled_from([1, 2]))
def test_real_tokens_keep_their_products_and_padding_gets_that_of_some_real_one(mask, sides):
    real = mask.flatten().nonzero().squeeze(1)
    packing = Packing.of(real, mask.shape)
    rows = torch.arange(sides * mask.numel() * 2.0).view(sides, -1, 2)  # two features, no token like another
    packed = [packing.packed(side) for side in rows]
    assert all(torch.equal(got, side[real]) for got, side in zip(packed, rows, strict=True))
    out = packing.unpacked(torch.cat(packed) * 3).view(sides, -1, 2)
    for got, side in zip(out, rows, strict=True):
        assert torch.equal(got[real], side[real] * 3)
        products = {tuple(row) for row in (side[real] * 3).tolist()}
        assert {tuple(row) for row in got.tolist()} == products  # of its own side


def test_only_one_sides_tokens_fit():
    packing = Packing.of(torch.tensor([0, 2, 5]), torch.Size((2, 3)))
    assert packing.fits(torch.empty(2, 3, 8)) and packing.fits(torch.empty(6, 8))
    for shape in ((1, 6, 8), (3, 2, 8), (4, 3, 8), (12, 8), (3, 8), (2, 8), (2, 3, 1, 8), (8,)):
        assert not packing.fits(torch.empty(shape)), shape
