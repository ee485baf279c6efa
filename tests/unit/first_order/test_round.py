"""A round of a dense method: who abstains, what attackers send, and when it is the end."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hpcfed.errors import ConfigError, DivergedError
from hpcfed.noise import fill_
from hpcfed.noise.layout import Piece
from hpcfed.seeds import derive
from hpcfed.train.problem import build_problem
from tests.support.first_order import PARTS, batches, gradient, method_of, poisonable, recipe_of, trained, values


@pytest.mark.parametrize("name", ["fedsgd", "fedavg"])
def test_rounds_are_a_function_of_their_arguments_and_stay_in_evaluation_mode(problem, folders, name):
    recipe = recipe_of(folders, name=name)
    twin = build_problem(recipe)
    for t in range(2):
        ours, theirs = (method_of(p, recipe).round(t, 1e-2, False) for p in (problem, twin))
        assert vars(ours) == vars(theirs) and problem.weights.fingerprint() == twin.weights.fingerprint()
    assert all(p.grad is None and not p.requires_grad for p in problem.model.parameters())
    assert not problem.model.training


@pytest.mark.parametrize("name", ["fedsgd", "fedavg"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sixteen_bit_weights_learn(folders, name, dtype):
    recipe = recipe_of(folders, name=name, dtype=dtype)
    problem = build_problem(recipe)
    first, method = values(problem), method_of(problem, recipe)
    outcomes = [method.round(0, 0.1 if name == "fedsgd" else 0.05, False) for _ in range(4)]
    assert outcomes[-1].loss < outcomes[0].loss and values(problem).dtype == first.dtype
    assert not torch.equal(values(problem), first) and bool(values(problem).isfinite().all())


@pytest.mark.parametrize("name", ["fedsgd", "fedavg"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_client_without_a_finite_loss_abstains_and_the_rest_go_on(problem, name, bad):
    w = values(problem).double()
    if name == "fedsgd":
        kept = [(5, gradient(problem, batches(1)[k])[0] * -0.01) for k in (0, 2)]
    else:
        kept = [(len(PARTS[k]), trained(problem, k, 1, "SGD", {}, 1, 0.01) - w) for k in (0, 2)]
    expected = w + sum(n * far for n, far in kept) / sum(n for n, _ in kept)
    outcome = method_of(poisonable(problem), recipe_of(name=name), poison={1: bad}).round(1, 0.01, False)
    assert outcome.abstained == 1 and np.isfinite(outcome.loss)
    torch.testing.assert_close(values(problem).double(), expected, rtol=1.2e-7, atol=1e-8)


@pytest.mark.parametrize("name", ["fedsgd", "fedavg"])
def test_a_report_beyond_the_range_abstains_though_its_loss_is_finite(problem, name):
    recipe, lr = recipe_of(name=name), 1e-2 if name == "fedsgd" else 1e9
    method = method_of(poisonable(problem), recipe, poison={0: 1e12, 2: 1e-12} if name == "fedsgd" else {})
    before = problem.weights.fingerprint()
    if name == "fedsgd":
        assert method.round(0, lr, False).abstained == 1
        assert problem.weights.fingerprint() != before
    else:
        with pytest.raises(DivergedError, match=r"lower algorithm.lr=1e\+09"):
            method.round(0, lr, False)
        assert problem.weights.fingerprint() == before


@pytest.mark.parametrize("name", ["fedsgd", "fedavg"])
def test_all_abstain_is_a_divergence_that_moves_nothing(problem, name):
    before = problem.weights.fingerprint()
    method = method_of(poisonable(problem), recipe_of(name=name), poison=dict.fromkeys(range(3), float("nan")))
    with pytest.raises(DivergedError, match="round 7: no client"):
        method.round(7, 0.01, False)
    assert problem.weights.fingerprint() == before


def honest_and_lie(problem, kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    """How far the weights move in a round of honest clients, and where client 1 attacks."""
    params = problem.weights.params
    kept, w = {name: p.data.clone() for name, p in params.items()}, values(problem).double()
    found = []
    scale = {"scale": 0.5} if kind == "random" else {}
    for attack in ({}, {"kind": kind, "clients": [1]} | scale):
        recipe = recipe_of(attack=attack)
        method_of(problem, recipe).round(0, 1.0, False)
        found.append(values(problem).double() - w)
        for name, p in params.items():
            p.data.copy_(kept[name])
    return found[0], found[1]


@pytest.mark.parametrize("kind", ["reverse", "stuff", "random", "label-flip"])
def test_attackers_send_what_they_are_said_to(problem, kind):
    g = [gradient(problem, indices)[0] for indices in batches(0)]
    if kind == "random":
        z = []
        for name, p in problem.weights.params.items():
            z.append(torch.empty(p.numel()))
            fill_(z[-1], derive(3, "random report", 1, 0), Piece.whole(name, p.numel()), "gaussian")
        lie = 0.5 * torch.cat(z).double()
    elif kind == "label-flip":
        train = problem.task.train
        train.labels[:] = 1 - train.labels
        lie = gradient(problem, batches(0)[1])[0]
        train.labels[:] = 1 - train.labels
    else:
        lie = g[1] * (-1.0 if kind == "reverse" else 100.0)
    honest, attacked = honest_and_lie(problem, kind)
    for moved, second in ((honest, g[1]), (attacked, lie)):
        expected = -(5 * g[0] + 3 * second + 5 * g[2]) / 13
        torch.testing.assert_close(moved, expected, rtol=1e-4, atol=1e-6)


def test_a_random_attacker_sends_though_its_loss_is_not_finite(problem):
    recipe = recipe_of(attack={"kind": "random", "clients": [1]})
    poison = dict.fromkeys(range(3), float("nan"))
    outcome = method_of(poisonable(problem), recipe, poison).round(0, 1e-3, False)
    assert outcome.abstained == 2 and np.isnan(outcome.loss)


def test_what_cannot_be_run_is_refused_at_once(problem):
    with pytest.raises(ConfigError, match=r'attack.kind="collude".*use attack.kind="reverse"'):
        method_of(problem, recipe_of(attack={"kind": "collude"}))
    with pytest.raises(ConfigError, match=r"algorithm.optimizer='Sgd' is unknown; did you mean SGD"):
        method_of(problem, recipe_of(name="fedavg", optimizer="Sgd"))


def test_bits_are_those_of_float32_elements(problem):
    bits = 32 * problem.weights.numel
    assert method_of(problem, recipe_of()).bits == (bits, bits)
