"""FedSGD and FedAvg on a tiny model with three clients, and the same in plain torch, without any of the machinery."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from hpcfed.clients import Attack, Pool
from hpcfed.clock import Clock
from hpcfed.config import ClientsConfig, Recipe, validate
from hpcfed.first_order.round import FirstOrder
from hpcfed.probe.hosted import Hosted
from hpcfed.seeds import derive, sample
from hpcfed.transport.solo import SoloTransport

PARTS = [np.arange(0, 7), np.arange(7, 10), np.arange(10, 21)]  # batches of 5 then hold 5, 3 and 5 examples


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
