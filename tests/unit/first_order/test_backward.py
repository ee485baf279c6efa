"""The gradient of one client's mean loss, whatever its micro-batches, and no trace of it afterwards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F

from hpcfed.first_order.backward import Backward, differentiable
from hpcfed.tasks import Batch
from hpcfed.weights import Weights
from tests.support.first_order import method_of, recipe_of, values
from tests.support.toy import Line, collate, toy_task


def line() -> Line:
    return Line().eval().requires_grad_(False)


def micro_batches(sizes: list[int]) -> Iterator[Batch]:
    """The first examples of the toy task, so many at a time."""
    train, start = toy_task().train, 0
    for size in sizes:
        yield collate([train[i] for i in range(start, start + size)])
        start += size


def backward_of(model: Line) -> Backward:
    return Backward(lambda inputs: model(inputs["x"]).logits, toy_task())


@pytest.mark.parametrize("sizes", [[12], [5, 7], [1] * 12])
def test_the_gradient_of_the_mean_loss_is_that_of_autograd(sizes):
    ours, theirs = line(), Line()
    (batch,) = micro_batches([12])
    loss = F.cross_entropy(theirs(batch.inputs["x"]).logits, batch.label)
    loss.backward()
    backward = backward_of(ours)
    with differentiable(Weights(ours)):
        assert backward(micro_batches(sizes), 12) == pytest.approx(loss.item(), rel=1e-6)
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-5, atol=1e-7)
        backward(micro_batches(sizes), 12)  # is added to what is there
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(p.grad, 2 * q.grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_ends_it_at_once(bad):
    model, taken = line(), []

    def until_bad() -> Iterator[Batch]:
        for i, batch in enumerate(micro_batches([3, 3, 3])):
            taken.append(i)
            if i == 1:
                batch.inputs["x"][2, 0] = bad
            yield batch

    with differentiable(Weights(model)):
        loss = backward_of(model)(until_bad(), 9)
    assert not torch.tensor(loss).isfinite() and taken == [0, 1]


def test_only_trained_parameters_are_differentiated_and_all_are_again_what_they_were():
    model = line()
    weights = Weights(model, ["*.bias"])
    model.dense.bias.requires_grad_(True)  # somebody else's wish comes back
    with differentiable(weights):
        assert torch.is_grad_enabled() and not model.dense.weight.requires_grad
        backward_of(model)(micro_batches([4]), 4)
        assert model.dense.bias.grad is not None and model.dense.weight.grad is None
    assert model.dense.bias.requires_grad and model.dense.bias.grad is None
    model.requires_grad_(False)
    with torch.inference_mode(False), torch.no_grad(), pytest.raises(KeyError), differentiable(weights):
        backward_of(model)(micro_batches([4]), 4)
        raise KeyError
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("limits", [{"max_batch_examples": 2}, {"max_batch_tokens": 30}])
def test_micro_batches_change_a_round_by_rounding_only(problem, limits):
    before = {name: p.data.clone() for name, p in problem.weights.params.items()}
    whole = method_of(problem, recipe_of()).round(0, 1.0, False)
    expected = values(problem)
    for name, p in problem.weights.params.items():
        p.data.copy_(before[name])
    cut = method_of(problem, recipe_of(), **limits).round(0, 1.0, False)
    torch.testing.assert_close(values(problem), expected, rtol=1e-3, atol=2e-6)
    assert cut.loss == pytest.approx(whole.loss, rel=1e-5)
