"""ZO-FedAvg against its formula, slowly; that walks leave no trace: probe/test_slopes.py."""

from __future__ import annotations

import numpy as np
import pytest

from hpcfed.seeds import derive
from tests.support.oracle import LR, build, move, play, same, slope, weights
from tests.support.toy import CLIENTS


@pytest.mark.parametrize("steps", [3, "epoch"])
def test_mean_of_walks(monkeypatch, steps):
    run = build(monkeypatch, {"name": "zo-fedavg", "lr": LR, "local_steps": steps})
    w, most = weights(run), run.header.settings["steps"]
    for t, decision in enumerate(play(run, 3)):
        p = np.frombuffer(decision, "<f4").reshape(CLIENTS, most)
        before, ends = w, []
        for k in range(CLIENTS):
            v = before
            for j, batch in enumerate(run.pool.steps(k, t, most, steps == "epoch")):
                seed = derive(0, "direction", t, j, k)
                assert p[k, j] == pytest.approx(slope(run, v, seed, batch), rel=2e-3, abs=2e-3)
                v = move(v, seed, p[k, j] * np.float32(LR))
                w = move(w, seed, p[k, j] * np.float32(LR / CLIENTS))
            ends.append(v)
            assert np.isnan(p[k, j + 1 :]).all()
        for name in w:
            np.testing.assert_allclose(w[name], np.mean([end[name] for end in ends], 0), atol=1e-5)
    assert same(run, w)
    assert run.method.uplink_bits == 64 * most


def test_an_epoch_visits_every_example_once(monkeypatch):
    run = build(monkeypatch, {"name": "zo-fedavg", "lr": LR, "local_steps": "epoch"})
    for k, part in enumerate(run.pool.parts):
        batches = list(run.pool.steps(k, 5, 99, True))
        assert sorted(np.concatenate(batches)) == sorted(part)
        assert run.header.settings["steps"] >= len(batches)
        assert not np.array_equal(np.concatenate(batches), np.concatenate(list(run.pool.steps(k, 6, 99, True))))


def test_one_client_ends_where_its_walk_ended(monkeypatch):
    run = build(monkeypatch, {"name": "zo-fedavg", "lr": LR}, clients={"count": 1})
    w = weights(run)
    (decision,) = play(run, 1)
    for j, p in enumerate(np.frombuffer(decision, "<f4")):
        w = move(w, derive(0, "direction", 0, j, 0), p * np.float32(LR))
    assert same(run, w)
