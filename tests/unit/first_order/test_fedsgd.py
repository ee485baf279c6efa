"""FedSGD against a plain torch loop of ten lines on a second model of the same bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hpcfed.clients import Attack, Pool
from hpcfed.clock import Clock
from hpcfed.config import ClientsConfig
from hpcfed.first_order.backward import Backward, differentiable
from hpcfed.first_order.fedsgd import FedSGD
from hpcfed.first_order.round import FirstOrder
from hpcfed.probe.hosted import Hosted
from hpcfed.transport.solo import SoloTransport
from hpcfed.weights import Weights
from tests.support.first_order import batches, gradient, method_of, recipe_of, values
from tests.support.toy import Line, toy_task


def test_fedsgd_is_the_weighted_mean_of_the_gradients(problem):
    w = values(problem).double()
    found = [gradient(problem, indices) for indices in batches(4)]
    expected = w - 0.05 * sum(n * g for n, (g, _) in zip((5, 3, 5), found, strict=True)) / 13
    outcome = method_of(problem, recipe_of()).round(4, 0.05, stop=True)
    assert (outcome.stop, outcome.abstained, outcome.payload_bytes, outcome.collectives) == (1, 0, 0, 0)
    assert outcome.loss == pytest.approx(np.mean([loss for _, loss in found]), rel=1e-6)
    torch.testing.assert_close(values(problem).double(), expected, rtol=1.2e-7, atol=1e-9)
    assert (values(problem).double() - w).abs().max() > 1e-3


def test_backward_passes_add_up_to_the_gradient_of_the_weighted_mean_loss(problem):
    w = values(problem)
    pooled, _ = gradient(problem, np.concatenate(batches(0)))  # n_k / n times means of n_k: the mean over all
    method_of(problem, recipe_of()).round(0, 1.0, stop=False)
    torch.testing.assert_close((w - values(problem)).double(), pooled, rtol=1e-3, atol=2e-6)


def test_a_report_is_the_gradient_of_the_clients_batch(problem):
    """Of every parameter and any stretch of it; None where the loss does not depend on it."""
    trainer = method_of(problem, recipe_of())._trainer
    for client, indices in enumerate(batches(6)):
        expected, loss = gradient(problem, indices)
        with differentiable(problem.weights), trainer.report(client, 6, 0.1) as (found, report):
            assert found == pytest.approx(loss, rel=1e-5)
            start = 0
            for name, p in problem.weights.params.items():
                whole, part = report(name, 0, p.numel()), report(name, 3, 7)
                assert whole is not None and whole.dtype == torch.float32 and torch.equal(part, whole[3:7])
                want = expected[start : start + p.numel()].float()
                torch.testing.assert_close(whole, want, rtol=1e-3, atol=1e-6)
                start += p.numel()


def test_a_parameter_that_is_not_read_reports_nothing_and_stays():
    model = Line().eval().requires_grad_(False)
    model.register_parameter("unread", torch.nn.Parameter(torch.ones(3), requires_grad=False))
    task, pool, recipe = toy_task(), Pool([np.arange(8)], 1, 1, 4, 3), recipe_of()
    hosted, weights = Hosted(pool, task, range(1), ClientsConfig()), Weights(model)
    trainer = FedSGD(recipe, weights, Backward(lambda i: model(i["x"]).logits, task), hosted)
    with differentiable(weights), trainer.report(0, 0, 0.1) as (_, report):
        assert report("unread", 0, 3) is None and report("dense.bias", 0, 3) is not None
    attack = Attack(recipe.attack, 0.0, 1, recipe.seed, SoloTransport())
    FirstOrder(recipe, weights, lambda i: model(i["x"]).logits, hosted, attack, SoloTransport(), Clock()).round(
        0, 1.0, False
    )
    assert model.unread.tolist() == [1, 1, 1] and not torch.equal(model.dense.bias, Line().dense.bias)
