"""Probes and what they are compared with: a copy of the model that was really moved."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn

from hpcfed.clients import Pool
from hpcfed.config import ClientsConfig
from hpcfed.noise import fill_
from hpcfed.probe import Probe
from hpcfed.probe.hosted import Hosted
from hpcfed.probe.trial import bound_probe
from hpcfed.weights import Weights

MU = 0.01


def forward_of(model: nn.Module):
    return lambda inputs: model(**inputs).logits


def moved(model: nn.Module, seed: int, mu: float, train_only=()) -> nn.Module:
    """Oracle: a copy of the model with w + mu z written into it."""
    other = copy.deepcopy(model)
    weights = Weights(other, train_only)
    for name, p in weights.params.items():
        z = torch.empty_like(p)
        fill_(z, seed, weights.pieces[name], "gaussian")
        p.data.add_(mu * z)
    return other


def check(model: nn.Module, inputs: dict[str, Tensor], train_only=(), seed: int = 7) -> Probe:
    weights = Weights(model, train_only)
    before = weights.fingerprint()
    probe = bound_probe(inputs, model, forward_of(model), weights, "gaussian")
    plus, minus = probe.logits(inputs, seed, MU)
    with torch.inference_mode():
        for got, mu in ((plus, MU), (minus, -MU)):
            want = forward_of(moved(model, seed, mu, train_only))(inputs)
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
        assert (plus - minus).abs().max() > 1e-4  # otherwise the comparison proves nothing
    assert weights.fingerprint() == before
    return probe


def real_tokens(inputs: dict[str, Tensor]) -> Tensor:
    return inputs["attention_mask"].flatten().nonzero().squeeze(1)


def hosted_of(problem, groups: range, **limits) -> Hosted:
    """A row with these groups of six clients, two a group, who share out the problem's data."""
    parts = np.array_split(np.arange(len(problem.task.train)), 6)
    return Hosted(Pool(parts, 6, 2, 5, run_seed=3), problem.task, groups, ClientsConfig(**limits))
