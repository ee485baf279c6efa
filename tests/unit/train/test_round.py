"""One round against Algorithm 1 written with NumPy, and what the loop around it leaves behind."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch.nn.functional as F

from hpcfed.clock import PARTS, SHARES
from hpcfed.errors import ConfigError, DivergedError
from hpcfed.messages import Slopes, Steps
from hpcfed.noise import spec
from hpcfed.orbit import read_journal
from hpcfed.seeds import coin, derive, name_key
from hpcfed.train.loop import train
from hpcfed.train.round import State, run_round
from tests.support.toy import CLASSES, CLIENTS, FEATURES, ROUNDS, Line, collate, recorded, toy_run

# --- Algorithm 1, slowly ---------------------------------------------------------------------------------------------


def direction(seed: int, name: str, n: int, distribution: str) -> np.ndarray:
    return spec.z(seed, name_key(name), np.arange(n, dtype=np.uint64), distribution)


def loss(w: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray) -> float:
    logits = (x @ w["dense.weight"].reshape(CLASSES, FEATURES).T + w["dense.bias"]).astype(np.float64)
    return float((np.log(np.exp(logits).sum(1)) - logits[np.arange(len(y)), y]).mean())


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


# --- the loop --------------------------------------------------------------------------------------------------------


def test_summary_log_and_orbit_of_a_run(monkeypatch: pytest.MonkeyPatch, tmp_path):
    run = recorded(toy_run(monkeypatch, eval_every=15, log_every=4), tmp_path / "a")
    summary = train(run)
    assert summary["status"] == "finished" and summary["rounds"] == ROUNDS
    assert summary["fingerprint"] == run.problem.weights.fingerprint() != summary["fingerprint_base"]
    assert summary["metric_after"] > summary["metric_before"] and summary["loss_after"] < summary["loss_before"]
    records = run.record.records()
    run.record.close()
    assert [r["t"] for r in records if "split" in r] == [0, 15, 30, 40]
    assert [r["t"] for r in records if "agreement" in r] == list(range(4, 41, 4))
    assert all(0.5 <= r["agreement"] <= 1 for r in records if "agreement" in r)


def test_all_clients_with_nan_losses_stop_the_run_and_lose_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path):
    run = recorded(toy_run(monkeypatch), tmp_path / "a")
    real = run.clients.slopes

    def slopes(t: int, steps: Steps) -> Slopes:
        found = real(t, steps)
        return replace(found, values=found.values * np.nan) if t == 7 else found

    monkeypatch.setattr(run.clients, "slopes", slopes)
    with pytest.raises(DivergedError, match="round 7: all 5 clients abstained") as error:
        train(run)
    assert run.transport.is_everywhere(error.value)  # so that several rows say it once
    run.record.close()
    assert len(read_journal(tmp_path / "a" / "journal")[1]) == 7


def test_a_journal_of_other_settings_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path):
    run = recorded(toy_run(monkeypatch), tmp_path / "a")
    train(run)
    run.record.close()
    (tmp_path / "a" / "summary.json").unlink()
    run = recorded(toy_run(monkeypatch, {"algorithm": {"lr": 0.06}}), tmp_path / "a", resume=True)
    with pytest.raises(ConfigError, match=r"the run was begun with other settings .*lr: 0\.05 -> 0\.06"):
        train(run)
    run.record.close()


def test_a_run_tells_where_its_time_went(monkeypatch: pytest.MonkeyPatch, tmp_path):
    run = recorded(toy_run(monkeypatch, check_every=15), tmp_path / "a")
    summary, records = train(run), run.record.records()
    run.record.close()
    told = [r for r in records if "timed" in r]
    assert [(r["t"], r["timed"]) for r in told] == [(15, 15), (30, 15), (40, 10)]
    assert all(r["time"]["waiting"] == 0 and r["slowest_row"] == 0 for r in told)  # alone
    split, rounds = summary["time_split"], [r["time"] for r in records if "loss" in r and "time" in r]
    assert len(rounds) == ROUNDS and list(split) == list(SHARES) and min(split.values()) >= 0
    for whole in (sum(split.values()) * ROUNDS, sum(sum(parts.values()) for parts in rounds)):
        assert whole == pytest.approx(summary["seconds"], abs=1e-4)  # the parts are rounded to 0.1 microseconds


def test_a_private_run_does_not(monkeypatch: pytest.MonkeyPatch, tmp_path):
    run = recorded(toy_run(monkeypatch, privacy={"mechanism": "local", "epsilon": 2}), tmp_path / "a")
    assert train(run)["time_split"] is None and not any("time" in r for r in run.record.records())
    run.record.close()


@pytest.mark.parametrize("name", ["feedsign", "zo-fedsgd", "zo-fedavg", "fedkseed", "fedsgd", "fedavg"])
def test_every_method_has_its_parts(monkeypatch: pytest.MonkeyPatch, name: str):
    run = toy_run(monkeypatch, {"algorithm": {"name": name}})
    with run.clock.round():
        run.round(0, State())
    spent = dict(zip(PARTS, run.clock.last, strict=True))
    assert (spent.pop("directions") > 0) == (not run.recipe.algorithm.traits.dense)  # first-order methods draw none
    assert min(spent.values()) > 0
