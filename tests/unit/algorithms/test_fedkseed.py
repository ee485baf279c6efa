"""FedKSeed and Pro against their formulas, slowly; the accumulators are the model."""

from __future__ import annotations

import numpy as np
import pytest

from hpcfed.algorithms.fedkseed import probabilities
from hpcfed.seeds import derive, words
from hpcfed.train.replay import replay_into, replay_on
from tests.support.oracle import LR, build, move, play, same, slope, weights
from tests.support.toy import CLIENTS

POOL, TAU, ROUNDS = 16, 5, 4


def settings(pro: bool, **more):
    return {"name": "fedkseed-pro" if pro else "fedkseed", "lr": LR, "pool_size": POOL, "local_steps": TAU} | more


@pytest.mark.parametrize("pro", [False, True])
def test_accumulators_and_probabilities(monkeypatch, pro: bool):
    run = build(monkeypatch, settings(pro, **({"history_clip": 0.3} if pro else {})))
    w0 = w = weights(run)
    sizes = np.array([len(part) for part in run.pool.parts])
    seeds, a, history = words(derive(0, "pool"), POOL), np.zeros(POOL), [[0.0] for _ in range(POOL)]
    last = None
    for t, decision in enumerate(play(run, ROUNDS)):
        q = np.array([np.mean(np.clip(np.abs(h), 0, 0.3)) for h in history])
        q = np.exp((q - q.min()) / (q.max() - q.min() + 1e-10))
        edges = np.cumsum(q / q.sum() if pro and t else np.full(POOL, 1 / POOL))
        for k in range(CLIENTS):
            v = w
            for i, batch in enumerate(run.pool.steps(k, t, TAU, False)):
                j = int((words(derive(0, "pool draw", t, k), TAU)[i] / 2**64 >= edges[:-1]).sum())
                assert run.method.plan(t, last).seeds[k, i] == seeds[j]
                p = np.float32(run_slope(run, v, seeds[j], batch))
                v = move(v, seeds[j], p * np.float32(LR))
                a[j] += sizes[k] / sizes.sum() * p
                history[j].append(float(p))
        found = np.frombuffer(decision, "<f4").reshape(-1, POOL)
        np.testing.assert_allclose(found[0], a, rtol=2e-3, atol=2e-3)
        a, w, last = found[0].astype(np.float64), w0, decision
        for j in np.flatnonzero(found[0]):
            w = move(w, seeds[j], found[0][j] * np.float32(LR))
        if pro:
            assert found[2].sum() == CLIENTS * TAU * (t + 1)
            np.testing.assert_allclose(
                found[1], [np.clip(np.abs(h), 0, 0.3).sum() for h in history], rtol=2e-3, atol=2e-3
            )
            history = [[0.0, *np.full(int(n), s / max(n, 1))] for s, n in zip(found[1], found[2], strict=True)]
    assert same(run, w)


def run_slope(run, w, seed: int, batch) -> float:
    return slope(run, w, seed, batch)


def test_the_last_decision_is_the_model(monkeypatch):
    for dtype in ("float32", "bfloat16", "float16"):
        run = build(monkeypatch, settings(False), model={"dtype": dtype})
        decisions = play(run, ROUNDS)
        other = build(monkeypatch, settings(False), model={"dtype": dtype}).problem.weights
        replay_into(run.header, decisions, other)
        assert other.fingerprint() == run.problem.weights.fingerprint()
        late = build(monkeypatch, settings(False), model={"dtype": dtype})
        replay_on(late.mover, late.method, decisions[:2])  # joins after two rounds and goes on
        late.mover.apply([late.method.decode(decisions[2], 2)])
        late.mover.apply([late.method.decode(decisions[3], 3)])
        assert late.problem.weights.fingerprint() == run.problem.weights.fingerprint()


def test_bits_of_the_papers_pool():
    from hpcfed.algorithms import make_algorithm
    from tests.support.orbits import make

    paper = {"pool": 4096, "steps": 200, "cohort": 10, "width": 4096}
    algorithm = make_algorithm(make(algorithm="fedkseed", directions=1, payload="floats", settings=paper))
    assert (algorithm.uplink_bits, algorithm.downlink_bits) == (64 * 200, 32 * 4096)
    assert algorithm.uplink_bits + algorithm.downlink_bits < 18_000 * 8


def test_probabilities_follow_the_mean_amplitude():
    p = probabilities(np.array([0.0, 1.0, 6.0]), np.array([0, 1, 2]))
    m = np.array([0, 0.5, 2])
    e = np.exp((m - m.min()) / (m.max() - m.min()))
    np.testing.assert_allclose(p, e / e.sum())
    np.testing.assert_allclose(probabilities(np.zeros(5), np.zeros(5)), np.full(5, 0.2))


def test_a_pool_is_drawn_from_evenly(monkeypatch):
    run = build(monkeypatch, settings(False))
    seeds = np.concatenate([run.method.plan(t, None).seeds.ravel() for t in range(400)])
    _, counts = np.unique(seeds, return_counts=True)
    expected = len(seeds) / POOL
    assert len(counts) == POOL and ((counts - expected) ** 2 / expected).sum() < 50  # chi-squared, 15 degrees: p ~ 1e-5
