"""The part of a language model's head that somebody reads: the same words, names and weights."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from torch import nn

from hpcfed.model.head import RowsLinear, make_forward, restrict_head
from hpcfed.probe.trial import bound_probe
from hpcfed.transport.row import Row
from hpcfed.weights import Weights
from tests.support.probes import MU, forward_of
from tests.support.small import tiny_batch, tiny_model


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


@pytest.mark.parametrize("bias", [False, True])
def test_rows_of_a_linear_layer_are_rows_of_its_output(bias):
    torch.manual_seed(0)
    linear, x, rows = nn.Linear(5, 9, bias=bias), torch.randn(2, 3, 5), [8, 0, 0, 3]
    part = RowsLinear(linear, rows)
    torch.testing.assert_close(part(x), linear(x)[..., rows])
    assert part.weight is linear.weight and part.bias is linear.bias
    assert dict(part.state_dict()).keys() == dict(linear.state_dict()).keys()


def test_a_head_that_is_no_plain_linear_layer_is_left_alone():
    class Own(nn.Linear):
        pass

    model = tiny_model("opt")
    head = Own(32, 512, bias=False)
    model.set_output_embeddings(head)
    assert not restrict_head(model, [1, 2]) and model.get_output_embeddings() is head
    inputs = tiny_batch("opt")
    forward = make_forward(model, Row(), head_rows=[5, 1])  # the rows are then picked from all logits
    assert torch.equal(forward(inputs), model(**inputs).logits[..., [5, 1]])
    model.lm_head = None
    assert not restrict_head(model, [1, 2])


@pytest.mark.parametrize("kind", ["opt", "llama", "roberta"])
@pytest.mark.parametrize("rows", [None, [11, 7]])
def test_logits_are_computed_only_where_they_are_read(kind, rows):
    whole, model, inputs = tiny_model(kind), tiny_model(kind), tiny_batch(kind)
    forward = make_forward(model, Row(), keep_last=2, head_rows=rows)
    expected = whole(**inputs).logits
    if kind != "roberta":  # a masked model has no such argument: its mask is anywhere
        expected = expected[:, -2:]
    torch.testing.assert_close(forward(inputs), expected if rows is None else expected[..., rows])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_images_are_cast_to_the_models_dtype_and_tokens_are_not(dtype):
    model, inputs = tiny_model("vit", dtype=dtype), tiny_batch("vit")
    expected = model(pixel_values=inputs["pixel_values"].to(dtype)).logits
    assert torch.equal(make_forward(model, Row())(inputs), expected) and expected.dtype == dtype
    assert inputs["pixel_values"].dtype == torch.float32
    assert make_forward(tiny_model("opt", dtype=dtype), Row())(tiny_batch("opt")).dtype == dtype


def test_others_may_talk_on_the_rows_channel_during_a_forward_pass():
    class Talking(Row):
        inside = 0

        @contextmanager
        def peers(self):
            self.inside += 1
            yield
            self.inside -= 1

    row, model, seen = Talking(), tiny_model("vit"), []
    model.register_forward_pre_hook(lambda *_: seen.append(row.inside))
    make_forward(model, row)(tiny_batch("vit"))
    assert seen == [1] and row.inside == 0
