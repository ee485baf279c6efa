"""Fixed-point sums: no order, no rows, no trace of a client that abstains."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from torch import nn

from hpcfed.first_order import exact_sum as exact
from hpcfed.first_order.exact_sum import LIMIT, SCALE, Total
from hpcfed.weights import Weights

SIZES = [3, 1, 5]


class Net(nn.Module):
    def __init__(self, dtype=torch.float32) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.ones(2, 3, dtype=dtype)), nn.Parameter(torch.ones(4, dtype=dtype))
        self.requires_grad_(False)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(exact, "CHUNK", 4)  # 6 elements are then two chunks


def flat(values: torch.Tensor):
    """The report whose elements are `values` [10], a then b."""
    return lambda name, low, high: values[0 if name == "a" else 6 :][low:high]


def reports(seed: int = 0) -> list[torch.Tensor]:
    return list(torch.randn(3, 10, generator=torch.Generator().manual_seed(seed)) * torch.logspace(-7, 4, 10))


def total_of(weights: Weights, which, found) -> Total:
    total = Total(weights, sum(SIZES), stop=False)
    for k in which:
        total.add(flat(found[k]), SIZES[k])
    return total


def test_any_order_and_any_split_over_rows_gives_the_same_integers():
    weights, found = Weights(Net()), reports()
    whole = total_of(weights, range(3), found).vector
    for order in permutations(range(3)):
        assert np.array_equal(total_of(weights, order, found).vector, whole)
    rows = [total_of(weights, mine, found).vector for mine in ([2], [], [0, 1])]
    assert np.array_equal(sum(rows), whole) and whole[-3:].tolist() == [9, 0, 0]


def test_the_mean_is_exact_to_the_resolution():
    weights, found = Weights(Net()), reports()
    total = total_of(weights, range(3), found)
    mean = total.vector[:-3] / SCALE
    expected = sum(n * x.double() for n, x in zip(SIZES, found, strict=True)) / 9
    np.testing.assert_allclose(mean, expected, rtol=1e-14, atol=3 * 0.5 / SCALE)
    total.move_(-0.25)
    moved = torch.cat([p.data.view(-1) for p in weights.params.values()])
    torch.testing.assert_close(moved, (1 - 0.25 * expected).float(), rtol=2e-7, atol=0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), -1.01 * LIMIT])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_client_with_a_bad_number_abstains_as_a_whole(bad, dtype):
    weights = Weights(Net())
    found = [x.to(dtype) if k == 1 else x for k, x in enumerate(reports())]
    found[1][9] = bad
    total = total_of(weights, range(3), found)
    assert np.array_equal(total.vector[:-3], total_of(weights, [0, 2], found).vector[:-3])
    assert (total.present, total.abstained, total.stops) == (8, 1, 0)
    total.move_(1.0)  # the mean is over those that sent
    expected = 1 + (3 * found[0].double() + 5 * found[2].double()) / 8
    moved = torch.cat([p.data.view(-1) for p in weights.params.values()])
    torch.testing.assert_close(moved, expected.float(), rtol=2e-7, atol=1e-12)


def test_the_ends_of_the_range_do_not_wrap():
    total = Total(Weights(Net()), 9, stop=True)
    for size in SIZES:
        total.add(flat(torch.full((10,), -LIMIT)), size)
    assert (total.vector[:-3] <= -(2**62) + 3).all() and total.vector[-3:].tolist() == [9, 0, 1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bit_weights_are_rounded_to_nearest_once(dtype):
    weights = Weights(Net(dtype))
    total = Total(weights, 1, stop=False)
    steps = torch.tensor([1e-4, 2e-3, 3e-3, 5e-3, 1e-2, -1e-4, -2e-3, -3e-3, 0.0, -1.0])
    total.add(flat(steps), 1)
    total.move_(1.0)
    moved = torch.cat([p.data.view(-1) for p in weights.params.values()])
    assert torch.equal(moved, (1 + steps).to(dtype)) and moved[0] == 1  # lost, as said


def test_no_report_abstains_and_none_is_zero():
    total = Total(Weights(Net()), 9, stop=False)
    total.add(None, 3)
    total.add(lambda name, low, high: None, 5)
    assert total.vector.tolist() == [0] * 10 + [5, 1, 0]
