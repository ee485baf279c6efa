"""ZO-FedSGD against its paper, slowly; robust tallies."""

from __future__ import annotations

import numpy as np
import pytest

from hpcfed.algorithms.zo_fedsgd import tallied
from hpcfed.seeds import derive
from tests.support.oracle import LR, build, move, play, same, slope, weights
from tests.support.toy import CLIENTS


@pytest.mark.parametrize("q", [1, 2])
def test_own_seeds(monkeypatch, q: int):
    run = build(monkeypatch, {"name": "zo-fedsgd", "lr": LR, "directions": q})
    w = weights(run)
    for t, decision in enumerate(play(run, 6)):
        p = np.frombuffer(decision, "<f4").reshape(CLIENTS, q)
        before = w
        for k in range(CLIENTS):
            for i in range(q):
                seed = derive(0, "direction", t, i, k)
                assert p[k, i] == pytest.approx(slope(run, before, seed, run.pool.batch(k, t)), rel=1e-3, abs=1e-3)
                w = move(w, seed, p[k, i] / np.float32(CLIENTS) * np.float32(LR / q))
    assert same(run, w)
    assert (run.method.uplink_bits, run.method.downlink_bits) == (64 * q, 64 * q * CLIENTS)


@pytest.mark.parametrize("tally", ["mean", "median", "trimmed"])
def test_shared_seeds(monkeypatch, tally: str):
    trim = {"trim": 0.4} if tally == "trimmed" else {}
    run = build(monkeypatch, {"name": "zo-fedsgd", "lr": LR, "seeds": "shared", "tally": tally} | trim)
    w, middle = weights(run), {"mean": np.mean, "median": np.median, "trimmed": lambda p: np.sort(p)[2:-2].mean()}
    for t, decision in enumerate(play(run, 6)):
        (f,) = np.frombuffer(decision, "<f4")
        seed = derive(0, "direction", t, 0)
        expected = middle[tally]([slope(run, w, seed, run.pool.batch(k, t)) for k in range(CLIENTS)])
        assert f == pytest.approx(expected, rel=1e-3, abs=1e-3)
        w = move(w, seed, f * np.float32(LR))
    assert same(run, w) and run.method.uplink_bits == 32


def test_tallies_by_hand():
    p = np.array([1, 2, 3, 4, 100, np.nan, np.inf], np.float32)
    assert tallied(p, "mean", 0.2) == 22
    assert tallied(p, "median", 0.2) == 3
    assert tallied(p, "trimmed", 0.2) == 3
    assert tallied(p, "trimmed", 0.1) == 22  # floor(0.7): nothing to cut
    assert tallied(np.array([1, 2, 3, 1e6, np.nan], np.float32), "trimmed", 0.2) == 2.5  # an abstention lets nobody in
    assert tallied(np.array([1, np.nan, np.nan], np.float32), "trimmed", 0.4) == 1
    assert tallied(np.arange(100, dtype=np.float32) ** 2, "trimmed", 0.29) == np.mean(np.arange(29, 71) ** 2)
    assert tallied(np.full(3, np.nan, np.float32), "median", 0.2) == 0


@pytest.mark.parametrize("tally", ["median", "trimmed"])
def test_a_minority_cannot_move_a_robust_tally_beyond_the_honest(tally: str):
    honest = np.random.default_rng(0).normal(size=7).astype(np.float32)
    for lie in (-1e30, 1e30, 0.0):
        p = np.concatenate([honest, np.full(3, lie, np.float32)])
        assert honest.min() <= tallied(p, tally, 0.3) <= honest.max()


def test_an_abstaining_client_leaves_the_mean(monkeypatch):
    run = build(monkeypatch, {"name": "zo-fedsgd", "lr": LR})
    p = np.arange(1, CLIENTS + 1, dtype=np.float32)
    p[2] = np.inf
    update = run.method.decode(p.tobytes(), 3)
    assert len(update.seeds) == CLIENTS - 1
    np.testing.assert_array_equal(update.values, np.delete(p, 2) / np.float32(CLIENTS - 1))
