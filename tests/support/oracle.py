"""What the oracles of all algorithms share: a linear classifier in NumPy, its slope along a direction, one move."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hpcfed.noise import spec
from hpcfed.seeds import name_key
from hpcfed.train.round import State
from hpcfed.train.run import OrbitRun
from tests.support.toy import CLASSES, FEATURES, toy_run

MU, LR = np.float32(0.01), 0.05
Weights = dict[str, np.ndarray]


def build(monkeypatch: pytest.MonkeyPatch, algorithm: dict[str, Any], **sections: Any) -> OrbitRun:
    return toy_run(monkeypatch, {"algorithm": algorithm, **sections})


def weights(run: OrbitRun) -> Weights:
    return {name: p.numpy().reshape(-1).copy() for name, p in run.problem.weights.params.items()}


def z(seed: int, w: Weights) -> Weights:
    return {n: spec.z(int(seed), name_key(n), np.arange(v.size, dtype=np.uint64), "gaussian") for n, v in w.items()}


def loss(w: Weights, x: np.ndarray, y: np.ndarray) -> float:
    logits = (x @ w["dense.weight"].reshape(CLASSES, FEATURES).T + w["dense.bias"]).astype(np.float64)
    return float((np.log(np.exp(logits).sum(1)) - logits[np.arange(len(y)), y]).mean())


def slope(run: OrbitRun, w: Weights, seed: int, indices: np.ndarray, mu: np.float32 = MU) -> float:
    """(L(w + mu z) - L(w - mu z)) / 2 mu on some training examples."""
    x, y = run.problem.task.train.columns["x"][indices], run.problem.task.train.labels[indices]
    d = z(seed, w)
    plus, minus = ({n: w[n] + s * (mu * d[n]) for n in w} for s in (np.float32(1), np.float32(-1)))
    return (loss(plus, x, y) - loss(minus, x, y)) / (2 * float(mu))


def move(w: Weights, seed: int, c: np.ndarray) -> Weights:
    """w - c z, as float32 rounds it."""
    d = z(seed, w)
    return {n: w[n] - np.float32(c) * d[n] for n in w}


def play(run: OrbitRun, rounds: int) -> list[bytes]:
    """The decisions of so many rounds."""
    state, decisions = State(), []
    for t in range(rounds):
        run.round(t, state)
        assert state.last is not None
        decisions.append(state.last)
    return decisions


def same(run: OrbitRun, w: Weights) -> bool:
    """The run's weights have the bits of w."""
    return all(v.tobytes() == w[n].tobytes() for n, v in weights(run).items())
