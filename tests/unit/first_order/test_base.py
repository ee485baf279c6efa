"""What every method without an orbit promises of its clients' reports."""

from __future__ import annotations

import numpy as np
import pytest

from hpcfed.clients import Pool
from hpcfed.config import METHODS, ClientsConfig, load_method
from hpcfed.first_order.backward import Backward, differentiable
from hpcfed.first_order.base import DenseMethod
from hpcfed.probe.hosted import Hosted
from tests.support.first_order import PARTS, method_of, recipe_of

DENSE = [name for name, traits in METHODS.items() if traits.dense]


@pytest.mark.parametrize("name", ["fedsgd", "fedavg"])
def test_a_report_leaves_no_trace(problem, name):
    first = problem.weights.fingerprint()
    method = method_of(problem, recipe_of(name=name))
    with differentiable(problem.weights), method._trainer.report(0, 0, 0.1) as (loss, report):
        assert np.isfinite(loss)
        assert any(float(report(n, 0, p.numel()).abs().max()) > 0 for n, p in problem.weights.params.items())
    assert problem.weights.fingerprint() == first
    with (
        pytest.raises(KeyError, match="midway"),
        differentiable(problem.weights),
        method._trainer.report(0, 0, 0.1),
    ):
        raise KeyError("midway")
    assert problem.weights.fingerprint() == first
    assert all(p.grad is None and not p.requires_grad for p in problem.model.parameters())
    assert not problem.model.training


@pytest.mark.parametrize("name", DENSE)
def test_every_dense_method_is_a_record_that_a_recipe_names(name):
    method = load_method(name)
    assert isinstance(method, DenseMethod) and method.name == name and method.traits is METHODS[name]
    recipe = recipe_of(name=name)
    assert method.settings(recipe.algorithm, Pool(PARTS, 3, 2, 5, 3)) == {}


@pytest.mark.parametrize(
    ("name", "more", "passes"), [("fedsgd", {}, 1), ("fedavg", {}, 1), ("fedavg", {"local_epochs": 3}, 3)]
)
def test_passes_over_a_clients_batch(name, more, passes):
    assert load_method(name).passes(recipe_of(name=name, **more).algorithm) == passes


@pytest.mark.parametrize(("name", "sizes", "factor"), [("fedsgd", [5, 3, 5], -0.25), ("fedavg", [7, 3, 11], 1.0)])
def test_examples_behind_each_report_are_the_same_on_every_row(problem, name, sizes, factor):
    recipe, pool = recipe_of(name=name), Pool(PARTS, 3, 2, 5, 3)
    for groups in (range(2), range(1, 2), range(0)):
        hosted = Hosted(pool, problem.task, groups, ClientsConfig())
        trainer = load_method(name).trainer(recipe, problem.weights, Backward(problem.forward, problem.task), hosted)
        found = trainer.sizes(6)
        assert found.dtype == np.int64 and found.tolist() == sizes
        assert trainer.factor(0.25) == factor
