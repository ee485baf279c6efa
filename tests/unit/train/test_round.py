"""One round against Algorithm 1 written with NumPy, and its slopes against the derivative."""

from __future__ import annotations

import numpy as np
import pytest
import torch.nn.functional as F

from hpcfed.noise import spec
from hpcfed.seeds import coin, derive, name_key
from hpcfed.train.round import State, run_round
from tests.support.oracle import loss
from tests.support.toy import CLIENTS, ROUNDS, Line, collate, toy_run


def direction(seed: int, name: str, n: int, distribution: str) -> np.ndarray:
    return spec.z(seed, name_key(name), np.arange(n, dtype=np.uint64), distribution)


@pytest.mark.parametrize("distribution", ["gaussian", "rademacher"])
def test_rounds_are_algorithm_1(monkeypatch: pytest.MonkeyPatch, distribution: str):
    run = toy_run(monkeypatch, {"algorithm": {"distribution": distribution}})
    w = {name: p.numpy().reshape(-1).copy() for name, p in run.problem.weights.params.items()}
    mu, lr, certain = np.float32(0.01), np.float32(0.05), 0
    x, y = run.problem.task.train.columns["x"], run.problem.task.train.labels
    for t in range(ROUNDS):
        found = run_round(run, t, State())
        seed = derive(0, "direction", t, 0)
        z = {n: direction(seed, n, v.size, distribution) for n, v in w.items()}
        plus, minus = ({n: w[n] + s * (mu * z[n]) for n in w} for s in (np.float32(1), np.float32(-1)))
        batches = [run.pool.batch(k, t) for k in range(CLIENTS)]
        slopes = np.array([(loss(plus, x[b], y[b]) - loss(minus, x[b], y[b])) / (2 * mu) for b in batches])
        doubtful = int((np.abs(slopes) < 1e-3).sum())  # the product's losses are float32: +-1e-7 / 2 mu
        assert abs(found.sums[0] - np.sign(slopes).sum()) <= 2 * doubtful and found.cast[0] == CLIENTS
        certain += doubtful == 0
        f = np.sign(found.sums[0]) or coin(derive(0, "tie", t, 0))
        w = {n: w[n] - (np.float32(f) * lr) * z[n] for n in w}
        for name, p in run.problem.weights.params.items():
            assert p.numpy().reshape(-1).tobytes() == w[name].tobytes(), (t, name)
    assert certain > 0.9 * ROUNDS
    assert loss(w, x, y) < 0.8 * loss({n: p.detach().numpy().reshape(-1) for n, p in Line().named_parameters()}, x, y)


def test_the_slope_is_the_derivative_along_z(monkeypatch: pytest.MonkeyPatch):
    run = toy_run(monkeypatch)
    seeds = run.method.plan(0, None).seeds
    found = run.clients.slopes(0, run.method.plan(0, None))
    clients, slopes, losses = found.clients, found.values, found.losses
    model = Line()
    for k in clients:
        batch = collate([run.problem.task.train[int(i)] for i in run.pool.batch(k, 0)])
        value = F.cross_entropy(model(batch.inputs["x"]).logits, batch.label)
        model.zero_grad()
        value.backward()
        along = sum(
            float(p.grad.numpy().reshape(-1) @ direction(int(seeds[0, 0]), n, p.numel(), "gaussian"))
            for n, p in model.named_parameters()
        )
        assert slopes[k, 0] == pytest.approx(along, rel=2e-2, abs=2e-3)
        assert losses[k] == pytest.approx(float(value.detach()), rel=1e-2)
