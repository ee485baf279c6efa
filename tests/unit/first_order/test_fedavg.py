"""FedAvg against a plain torch loop of ten lines on a second model of the same bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hpcfed.errors import ConfigError
from hpcfed.first_order.backward import differentiable
from tests.support import first_order
from tests.support.first_order import PARTS, gradient, method_of, recipe_of, trained, values


@pytest.mark.parametrize(
    ("optimizer", "options", "epochs"),
    [("SGD", {}, 1), ("SGD", {"momentum": 0.9}, 3), ("Adam", {"betas": (0.8, 0.9)}, 2), ("AdamW", {}, 1)],
)
def test_fedavg_is_the_weighted_mean_of_the_clients_walks(problem, optimizer, options, epochs):
    w = values(problem).double()
    far = sum(len(PARTS[k]) * (trained(problem, k, 2, optimizer, options, epochs, 1e-3) - w) for k in range(3)) / 21
    given = {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}
    recipe = recipe_of(name="fedavg", optimizer=optimizer, optimizer_options=given, local_epochs=epochs, lr=7.0)
    outcome = method_of(problem, recipe).round(2, 1e-3, stop=False)
    torch.testing.assert_close(values(problem).double(), w + far, rtol=1.2e-7, atol=1e-8)
    assert outcome.abstained == 0 and np.isfinite(outcome.loss) and far.abs().max() > 1e-4


def test_one_full_batch_step_of_fedavg_is_fedsgd(problem, monkeypatch):
    monkeypatch.setattr(first_order, "PARTS", [np.arange(0, 5), np.arange(5, 8), np.arange(8, 13)])
    before = values(problem)
    method_of(problem, recipe_of()).round(0, 0.1, False)
    fedsgd = values(problem) - before
    for p, w in zip(
        problem.weights.params.values(), before.split([p.numel() for p in problem.weights.params.values()]), strict=True
    ):
        p.data.copy_(w.view_as(p))
    method_of(problem, recipe_of(name="fedavg")).round(0, 0.1, False)
    torch.testing.assert_close(values(problem) - before, fedsgd, rtol=1e-3, atol=1e-6)


def test_every_client_starts_from_the_rounds_weights_with_a_fresh_optimiser(problem):
    """So its report does not depend on who came before it on its row."""
    recipe = recipe_of(name="fedavg", optimizer="Adam", local_epochs=2)
    found = []
    for order in ([1], [0, 1], [2, 1, 1]):
        trainer = method_of(problem, recipe)._trainer
        with differentiable(problem.weights):
            for client in order:
                with trainer.report(client, 3, 1e-3) as (loss, report):
                    moved = torch.cat([report(name, 0, p.numel()) for name, p in problem.weights.params.items()])
        found.append((loss, moved))
    assert found[0][1].abs().max() > 0
    for loss, moved in found[1:]:
        assert loss == found[0][0] and torch.equal(moved, found[0][1])


def test_without_a_step_size_the_loss_is_the_mean_over_the_clients_data_and_nobody_moves(problem):
    trainer = method_of(problem, recipe_of(name="fedavg", local_epochs=2))._trainer
    for client, part in enumerate(PARTS):
        _, loss = gradient(problem, part)
        with differentiable(problem.weights), trainer.report(client, 0, 0.0) as (found, report):
            assert found == pytest.approx(loss, rel=1e-5)
            assert not any(report(name, 0, p.numel()).any() for name, p in problem.weights.params.items())


def test_an_optimiser_that_cannot_be_made_is_refused_before_the_first_round(problem):
    with pytest.raises(ConfigError, match=r"algorithm\.optimizer_options\.momentun"):
        method_of(problem, recipe_of(name="fedavg", optimizer_options={"momentun": 0.9}))
