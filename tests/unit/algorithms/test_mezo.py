"""MeZO against its Algorithm 1: one owner, one batch, whatever the slices that rows share."""

from __future__ import annotations

import numpy as np
import pytest

from hpcfed.seeds import derive, sample
from tests.support.oracle import LR, build, move, play, same, slope, weights


@pytest.mark.parametrize("slices", [1, 3])
def test_one_batch_of_all_data(monkeypatch, slices: int):
    run = build(monkeypatch, {"name": "mezo", "lr": LR}, clients={"count": slices, "batch": 7})
    w, n = weights(run), len(run.problem.task.train)
    for t, decision in enumerate(play(run, 6)):
        (p,) = np.frombuffer(decision, "<f4")
        seed, batch = derive(0, "direction", t, 0), np.array(sample(derive(0, "batch", 0, t), n, 7))
        assert sorted(np.concatenate([run.pool.batch(k, t) for k in range(slices)])) == sorted(batch)
        assert p == pytest.approx(slope(run, w, seed, batch), rel=1e-3, abs=1e-3)
        w = move(w, seed, p * np.float32(LR))
    assert same(run, w)
    assert run.method.uplink_bits == 0 and len(run.pool.parts) == 1


def test_no_more_slices_than_examples_in_the_batch(monkeypatch):
    run = build(monkeypatch, {"name": "mezo", "lr": LR}, clients={"count": 50, "batch": 4})
    assert run.pool.clients == 4 and run.pool.sizes(0).tolist() == [1, 1, 1, 1]
