"""Bytes and FLOPs of small pieces of code that can be counted by hand."""

from __future__ import annotations

import gc

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hpcfed.plan.meter import Meter


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def test_a_product_of_matrices():
    x, w = meta(3, 5), meta(5, 7)
    meter = Meter([x, w])
    with meter.measuring():
        y = x @ w
    assert y.shape == (3, 7)
    assert (meter.live, meter.peak, meter.flops) == (4 * 3 * 7, 4 * 3 * 7, 2 * 3 * 5 * 7)


def test_the_peak_is_what_is_alive_at_once():
    x = meta(10, dtype=torch.bfloat16)
    meter = Meter([x])
    with meter.measuring():
        y = x + 1  # 20 bytes
        z = torch.cat([y, y, y]).float()  # 60, and 120 of them in float32
        del y
        z = z[:5].clone()
    assert (meter.live, meter.peak, meter.flops) == (20, 20 + 60 + 120, 0)
    assert z.nbytes == 20
    del z
    gc.collect()
    assert meter.live == 0


def test_views_and_writes_in_place_take_nothing():
    x = meta(4, 6)
    meter = Meter([x])
    with meter.measuring():
        kept = [x.view(24), x.t(), x[1:], x.expand(2, 4, 6), x.add_(1)]
        x.copy_(meta(6))  # which is made inside, and gone
    assert len(kept) == 5 and (meter.live, meter.peak) == (0, 24)


def test_a_measurement_begins_with_what_is_alive():
    x = meta(5)
    meter = Meter([x])
    with meter.measuring():
        first = x * 2
        assert (x.view(5, 1) @ x.view(1, 5)).shape == (5, 5)
    assert meter.flops > 0
    with meter.measuring():
        pass
    assert (meter.live, meter.peak, meter.flops) == (20, 20, 0)
    with meter.measuring():
        second = first * 2
    assert (meter.live, meter.peak) == (40, 40) and second.shape == first.shape
    outside = second * 2
    assert outside.shape == (5,) and meter.live == 40  # nobody measures


@pytest.mark.parametrize("masked", [False, True])
def test_attention_has_no_matrix_of_scores(masked):
    """It takes its output, a number a query and head, and a mask in the queries' dtype."""
    q, mask = meta(2, 4, 160, 8), meta(2, 1, 160, 160, dtype=torch.bool)
    meter = Meter([q, mask])
    with meter.measuring():
        out = F.scaled_dot_product_attention(q, q, q, attn_mask=mask if masked else None)
    assert out.shape == q.shape and meter.live == q.nbytes
    assert meter.peak == q.nbytes + 4 * 2 * 4 * 160 + (4 * mask.numel() if masked else 0)
    assert meter.peak < 4 * 2 * 4 * 160 * 160  # of the scores
    assert meter.flops == 2 * 2 * (2 * 4) * 160 * 160 * 8


def test_a_backward_pass_has_twice_the_products():
    x, w = meta(3, 5), meta(7, 5).requires_grad_(True)
    x.requires_grad_(True)
    meter = Meter([x, w])
    with torch.enable_grad(), meter.measuring():
        F.linear(x, w).sum().backward()
    assert meter.flops == 3 * 2 * 3 * 5 * 7 and w.grad is not None and x.grad is not None
    assert meter.live == w.nbytes + x.nbytes


def test_a_question_about_values_is_answered_with_no():
    mask = meta(2, 3, dtype=torch.bool)
    with Meter([mask]).measuring():
        assert not mask.all() and mask.sum().item() == 0
    with pytest.raises(RuntimeError):
        bool(mask.all())
