"""FedSGD and FedAvg against plain torch loops of ten lines on a second model of the same bits."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hpcfed.clients import Attack, Pool
from hpcfed.clock import Clock
from hpcfed.config import ClientsConfig, Recipe, validate
from hpcfed.errors import ConfigError, DivergedError
from hpcfed.first_order.backward import differentiable
from hpcfed.first_order.round import FirstOrder
from hpcfed.noise import fill_
from hpcfed.noise.layout import Piece
from hpcfed.probe.hosted import Hosted
from hpcfed.seeds import derive, sample
from hpcfed.train.problem import build_problem
from hpcfed.transport.solo import SoloTransport
from tests.support.small import save_tiny_folder, tiny_sst2

PARTS = [np.arange(0, 7), np.arange(7, 10), np.arange(10, 21)]  # batches of 5 then hold 5, 3 and 5 examples


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    tmp = tmp_path_factory.mktemp("dense")
    return {"name": str(save_tiny_folder(tmp, "opt")), "data": str(tiny_sst2(tmp))}


def recipe_of(folders=None, attack=None, dtype="float32", **algorithm) -> Recipe:
    """folders: only needed to load a problem."""
    folders = folders or {"name": "unused", "data": "unused"}
    return validate(
        {
            "rounds": 1,
            "seed": 3,
            "model": {"name": folders["name"], "dtype": dtype},
            "task": {"name": "sst2", "data": folders["data"]},
            "clients": {"count": 3, "batch": 5, "group": 2},
            "algorithm": {"name": "fedsgd", "lr": 1e-2} | algorithm,
            "attack": attack or {},
            "mesh": {"threads": 1},
        }
    )


@pytest.fixture(scope="module")
def loaded(folders):
    return build_problem(recipe_of(folders))


@pytest.fixture
def problem(loaded) -> Iterator:
    """The problem with the weights it was loaded with."""
    before = {name: p.data.clone() for name, p in loaded.weights.params.items()}
    yield loaded
    for name, p in loaded.weights.params.items():
        p.data.copy_(before[name])


class Poisoned(Hosted):
    """Marks the batches of some clients, so that `poisonable` scores of them are what `poison` says."""

    poison: ClassVar[dict[int, float]] = {}

    def batches(self, client, indices):
        for batch in super().batches(client, indices):
            mark = {"poison": torch.tensor(self.poison[client])} if client in self.poison else {}
            yield replace(batch, extra=batch.extra | mark)


def poisonable(problem):
    """The problem, in which a marked batch's scores are multiplied by its mark."""
    scores = problem.task.form.scores
    form = replace(problem.task.form, scores=lambda x, batch: scores(x, batch) * batch.extra.get("poison", 1.0))
    return replace(problem, task=replace(problem.task, form=form))


def method_of(problem, recipe, poison=None, **limits) -> FirstOrder:
    pool = Pool(PARTS, 3, 2, 5, recipe.seed)
    attack = Attack(recipe.attack, 0.0, 3, recipe.seed, SoloTransport())
    hosted = Poisoned(pool, problem.task, range(pool.n_groups), ClientsConfig(**limits), attack.flips)
    hosted.poison = poison or {}
    return FirstOrder(recipe, problem.weights, problem.forward, hosted, attack, SoloTransport(), Clock())


def values(problem) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1) for p in problem.weights.params.values()]).clone()


def plain_loss(problem, indices) -> torch.Tensor:
    """Mean loss over these examples, in one batch without any of the machinery."""
    examples = sorted((problem.task.train[int(i)] for i in indices), key=problem.task.tokens)
    batch = problem.task.collate(examples)
    scores = problem.task.form.scores(problem.forward(batch.inputs), batch)
    return F.cross_entropy(scores, batch.label)


def gradient(problem, indices) -> tuple[torch.Tensor, float]:
    params = list(problem.weights.params.values())
    for p in params:
        p.requires_grad_(True)
    loss = plain_loss(problem, indices)
    grads = torch.autograd.grad(loss, params, allow_unused=True)
    for p in params:
        p.requires_grad_(False)
    flat = [torch.zeros_like(p) if g is None else g for p, g in zip(params, grads, strict=True)]
    return torch.cat([g.reshape(-1) for g in flat]).double(), loss.item()


def batches(t: int, seed: int = 3) -> list[np.ndarray]:
    pool = Pool(PARTS, 3, 2, 5, seed)
    return [pool.batch(k, t) for k in range(3)]


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


def trained(problem, client: int, t: int, optimizer: str, options, epochs: int, lr: float) -> torch.Tensor:
    """The client's weights after its local epochs; the problem's own come back."""
    params = list(problem.weights.params.values())
    kept = copy.deepcopy([p.data for p in params])
    stepper = getattr(torch.optim, optimizer)(params, lr=lr, **options)
    for e in range(epochs):
        n = len(PARTS[client])
        order = PARTS[client][sample(derive(3, "epoch", client, t, e), n, n)]
        for i in range(0, n, 5):
            for p in params:
                p.requires_grad_(True)
                p.grad = None
            plain_loss(problem, order[i : i + 5]).backward()
            stepper.step()
    there = values(problem).double()
    for p, w in zip(params, kept, strict=True):
        p.grad = None
        p.requires_grad_(False)
        p.data.copy_(w)
    return there


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
    monkeypatch.setattr(f"{__name__}.PARTS", [np.arange(0, 5), np.arange(5, 8), np.arange(8, 13)])
    before = values(problem)
    method_of(problem, recipe_of()).round(0, 0.1, False)
    fedsgd = values(problem) - before
    for p, w in zip(
        problem.weights.params.values(), before.split([p.numel() for p in problem.weights.params.values()]), strict=True
    ):
        p.data.copy_(w.view_as(p))
    method_of(problem, recipe_of(name="fedavg")).round(0, 0.1, False)
    torch.testing.assert_close(values(problem) - before, fedsgd, rtol=1e-3, atol=1e-6)


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
