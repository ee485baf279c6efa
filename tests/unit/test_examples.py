"""The examples of CONTRIBUTING.md do what they say, through the recipe, and what they leave is as good as ours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import hpcfed
from hpcfed.clients import Deal, partition
from hpcfed.config import load_recipe
from hpcfed.config.outside import load_outside
from hpcfed.errors import ConfigError, HpcfedError, OrbitError
from hpcfed.seeds import derive
from hpcfed.tasks import Batch
from tests.support.command import ok, refused
from tests.support.oracle import LR, MU, build, move, play, same, slope, weights
from tests.support.toy import CLIENTS

EXAMPLES = Path(__file__).parents[2] / "examples"
METHOD, TASK, PARTITION = (
    f"{EXAMPLES}/{name}" for name in ("my_method.py:METHOD", "my_task.py:TASK", "my_partition.py:by_parity")
)
FEW = ["rounds=4", "clients.batch=8", "eval_every=0"]


def test_no_example_is_long():
    for file in EXAMPLES.glob("*.py"):
        assert len(file.read_text().splitlines()) < 80, file


def test_the_method_is_its_formula(monkeypatch: pytest.MonkeyPatch):
    settings = {"name": METHOD, "lr": LR, "mu": float(MU), "decay": 0.5, "directions": 3}
    run, other = build(monkeypatch, settings), build(monkeypatch, settings)
    w = weights(run)
    for t, decision in enumerate(play(run, 5)):
        mu, signs = np.float32(float(MU) * 0.5**t), []
        assert other.method.plan(t, None).mu == pytest.approx(mu)
        found = other.clients.slopes(t, other.method.plan(t, None)).values
        for i in range(3):
            seed = derive(0, "direction", t, i)
            p = [slope(run, w, seed, run.pool.batch(k, t), mu) for k in range(CLIENTS)]
            np.testing.assert_allclose(found[:, i], p, rtol=5e-2, atol=2e-3)
            signs.append(1 if np.sign(found[:, i]).sum() >= 0 else -1)
        assert [1 if decision[0] >> i & 1 else -1 for i in range(3)] == signs
        for i, f in enumerate(signs):
            w = move(w, derive(0, "direction", t, i), f * np.float32(LR / 3))
        other.mover.apply([other.method.decode(decision, t)])
    assert same(run, w) and same(other, w)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the example method, by the command, interrupted by nobody."""
    out = tmp_path_factory.mktemp("own") / "run"
    chosen = [f"algorithm.name={METHOD}", "algorithm.directions=4", *FEW]
    ok("train", "digits", *(part for setting in chosen for part in ("--set", setting)), "--out", out, "--quiet")
    return out


def test_its_orbit_replays(own: Path, tmp_path: Path):
    orbit = hpcfed.read_orbit(own)
    assert orbit.header.algorithm == "decaying-vote" and orbit.rounds == 4
    replayed = hpcfed.replay(own, "digits-vit", method=METHOD, out=tmp_path / "tuned")
    assert replayed.fingerprint == orbit.fingerprint != orbit.header.base_fingerprint
    assert (tmp_path / "tuned" / "model.safetensors").is_file()
    assert "as the run did" in ok("orbit", "verify", own, "--base", "digits-vit", "--method", METHOD).out
    assert "decaying-vote" in ok("orbit", "show", own).out  # which runs no code
    before, after = hpcfed.evaluate("digits"), hpcfed.evaluate(own)
    assert after["test"].loss != before["test"].loss


def test_an_orbit_never_runs_code_by_itself(own: Path):
    said = refused("orbit", "verify", own, "--base", "digits-vit")
    assert "no method with an orbit is called 'decaying-vote'" in said and "--method FILE.py:NAME" in said
    with pytest.raises(OrbitError, match="made by 'decaying-vote', not by the method 'feedsign'"):
        hpcfed.replay(own, "digits-vit", method="feedsign")


def test_a_run_does_not_go_on_with_other_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def stop(record: dict) -> None:
        if record["t"] == 2:
            raise KeyboardInterrupt

    copy = tmp_path / "my_method.py"
    copy.write_text((EXAMPLES / "my_method.py").read_text())
    recipe = load_recipe("digits", [f"algorithm.name={copy}:METHOD", *FEW])
    with pytest.raises(KeyboardInterrupt):
        hpcfed.train(recipe, tmp_path / "run", quiet=True, on_round=stop)
    monkeypatch.setattr("hpcfed.algorithms.header.outside_digest", lambda name: "0" * 32)  # as if it had been edited
    with pytest.raises(ConfigError, match=r"begun with other settings .*code"):
        hpcfed.train(recipe, tmp_path / "run", quiet=True, resume=True)
    monkeypatch.undo()
    done = hpcfed.train(recipe, tmp_path / "run", quiet=True, resume=True)
    undisturbed = hpcfed.train(recipe, tmp_path / "other", quiet=True)
    assert done.summary["fingerprint"] == undisturbed.summary["fingerprint"]


def test_the_task_has_its_data_and_its_loss(tmp_path: Path):
    recipe = load_recipe("digits", [f"task.name={TASK}", *FEW])
    result = hpcfed.train(recipe, tmp_path / "run", quiet=True)
    assert result.summary["metric_before"] > 0.3  # upside down, many digits look as before
    task = load_outside("task.name", TASK).load(recipe.task, "image-classification", None)
    assert len(task.train) == 1200 and len(task.splits["test"]) == 597
    scores, label = torch.tensor([[2.0, 1.5, 0.0], [1.0, 4.0, 0.0], [0.0, 3.0, 1.0]]), torch.tensor([0, 1, 2])
    losses = task.losses(scores, Batch({}, label))
    assert losses.tolist() == [0.5, 0.0, 3.0]
    assert [answer.chosen for answer in task.answered(scores, Batch({}, label))] == [0, 1, 1]


def test_a_task_for_other_models_is_refused(tmp_path: Path):
    (tmp_path / "own.py").write_text("from hpcfed.tasks import OwnTask\nTASK = OwnTask(('causal-lm',), print)\n")
    recipe = load_recipe("digits", [f"task.name={tmp_path}/own.py:TASK", *FEW])
    with pytest.raises(ConfigError, match="is for causal-lm models, the model is a image-classification model"):
        hpcfed.train(recipe, tmp_path / "run", quiet=True)


def test_the_partition_deals_by_parity():
    labels = np.arange(100) % 10
    parts = partition(PARTITION, Deal(labels, 6, seed=3))
    assert [set(labels[part] % 2) for part in parts] == [{0}] * 3 + [{1}] * 3
    assert [part.tolist() for part in parts] == [
        part.tolist() for part in partition(PARTITION, Deal(labels, 6, seed=3))
    ]


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("deal.labels[:0]", "gives no arrays of indices"),
        ("[[0, 1]] * deal.clients", "must deal each of the examples 0..19 to one client, once"),
        ("[range(20)] + [[]] * (deal.clients - 1)", "leaves client 1 without an example"),
        ("[range(20)]", r"deals to 1 clients, where clients.count=4"),
        ("[range(5 * k, 5 * k + 5 + (k == 3)) for k in range(4)]", "must deal each of the examples"),
    ],
)
def test_a_partition_that_loses_or_doubles_examples_is_refused(tmp_path: Path, code: str, says: str):
    (tmp_path / "own.py").write_text(f"def deal_out(deal):\n    return {code}\n")
    with pytest.raises(HpcfedError, match=f"clients.partition='.*own.py:deal_out': {says}"):
        partition(f"{tmp_path}/own.py:deal_out", Deal(np.zeros(20, np.int64), 4))
