"""keep_best: which round is the result, that it is the model of exactly those rounds, and that no kill changes it."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

import hpcfed
from hpcfed.config import Recipe, load_recipe
from hpcfed.errors import ConfigError, HpcfedError
from hpcfed.tasks.evaluate import Score
from hpcfed.train.keep import best_round
from tests.support.digits import lines, tiny
from tests.support.small import save_tiny_folder, tiny_sst2

NAN, INF = float("nan"), float("inf")
ROUNDS = 6
#: Settings by what is special about replaying them; so that neither the base model nor the last round is best.
METHODS = {
    "votes": ["algorithm.lr=0.02"],
    "slopes of one sum": [
        "algorithm.name=fedkseed", "algorithm.pool_size=8", "algorithm.local_steps=2", "algorithm.lr=0.02", "seed=5",
    ],
    "an optimiser": ["algorithm.update=optimizer", "algorithm.optimizer=Adam", "algorithm.lr=0.1", "seed=2"],
}  # fmt: skip


class Killed(Exception):
    """What ends a run at any place."""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A tiny model, and data of which some are kept as dev."""
    tmp = tmp_path_factory.mktemp("keep")
    names = [f"model.name={save_tiny_folder(tmp, 'opt')}", f"task.data={tiny_sst2(tmp)}"]
    return [*names, "task.dev=20", "clients.count=3", "clients.batch=4", "algorithm.schedule=constant", "log_every=1"]


def recipe_of(settings: list[str], *more: str) -> Recipe:
    usual = [*settings, f"rounds={ROUNDS}", "eval_every=2", "keep_best=true"]
    return load_recipe("sst2-opt-125m", [*usual, *more])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, settings: list[str]) -> hpcfed.Result:
    """A run by votes that nothing disturbs."""
    return hpcfed.train(recipe_of(settings, *METHODS["votes"]), tmp_path_factory.mktemp("whole") / "run", quiet=True)


@pytest.mark.parametrize(
    ("losses", "best"),
    [
        ({0: 3.0, 2: 1.0, 4: 2.0}, 2),
        ({0: 1.0, 2: 1.0, 4: 1.0}, 0),
        ({4: 1.0, 2: 1.0, 0: 2.0}, 2),
        ({0: NAN, 2: INF, 4: 9.0}, 4),
        ({0: -INF, 2: 5.0}, 2),
        ({0: NAN}, None),
        ({}, None),
    ],
)
def test_the_lowest_finite_loss_and_of_equals_the_earliest(losses: dict[int, float], best: int | None):
    scores = {t: {"test": Score(1.0, -float(t), 9, "accuracy"), "dev": Score(0.5, x, 9, "accuracy")}
              for t, x in losses.items()}  # fmt: skip
    assert best_round(scores) == best


@pytest.mark.parametrize("name", METHODS)
def test_the_result_is_that_of_a_run_of_so_many_rounds(
    settings: list[str], tmp_path: Path, name: str, whole: hpcfed.Result
):
    kept = whole
    if name != "votes":
        kept = hpcfed.train(recipe_of(settings, *METHODS[name]), tmp_path / "run", quiet=True)
    told, scored = kept.summary, [line for line in lines(kept.folder) if "split" in line]
    losses = {line["t"]: line["loss"] for line in scored if line["split"] == "dev"}
    assert list(losses) == [0, 2, 4, 6]
    best = min(losses, key=losses.__getitem__)
    assert 0 < best < ROUNDS and (told["kept_round"], told["scored_at"], told["rounds"]) == (best, best, ROUNDS)
    first = {line["t"]: line for line in scored if line["split"] == told["split"]}[best]
    assert (told["metric_after"], told["loss_after"]) == (first["value"], first["loss"])

    short = recipe_of(settings, *METHODS[name], f"rounds={best}", "keep_best=false")
    right = hpcfed.train(short, tmp_path / "short", quiet=True)
    assert told["fingerprint"] == right.summary["fingerprint"] and right.summary["kept_round"] is None
    ours, theirs = hpcfed.read_orbit(kept.folder), hpcfed.read_orbit(right.folder)
    assert (ours.decisions, ours.fingerprint) == (theirs.decisions, theirs.fingerprint)
    assert len(hpcfed.read_orbit(kept.folder / "journal").decisions) == ROUNDS
    assert kept.model and right.model
    assert all(a.equal(b) for a, b in zip(kept.model.parameters(), right.model.parameters(), strict=True))


def test_what_reads_the_run_sees_the_kept_model(settings: list[str], tmp_path: Path, whole: hpcfed.Result):
    scores, best = hpcfed.evaluate(whole.folder, quiet=True), whole.summary["kept_round"]
    dev = next(line for line in lines(whole.folder) if line.get("split") == "dev" and line["t"] == best)
    assert (scores["dev"].value, scores["dev"].loss) == (dev["value"], dev["loss"])
    done = hpcfed.export(whole.folder, tmp_path / "exported")
    assert (done.fingerprint, done.rounds) == (whole.summary["fingerprint"], best)
    last = hpcfed.replay(whole.folder / "journal", settings[0].removeprefix("model.name="))
    assert last.rounds == ROUNDS and last.fingerprint != done.fingerprint


def at(t: int) -> Any:
    def stop(line: dict[str, Any]) -> None:
        if line["t"] == t and line.get("split") != "validation":
            raise Killed

    return stop


@pytest.mark.parametrize("killed", ["in a round", "after the last evaluation", "before it is sealed", "after that"])
def test_a_kill_changes_nothing(
    settings: list[str], tmp_path: Path, whole: hpcfed.Result, monkeypatch: pytest.MonkeyPatch, killed: str
):
    recipe, out = recipe_of(settings, *METHODS["votes"]), tmp_path / "run"

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        if killed == "before it is sealed":
            patch.setattr("hpcfed.train.trail.seal", die)
        if killed == "after that":
            patch.setattr("hpcfed.runs.folder.RunFolder.write_summary", die)
        on_round = at(3) if killed == "in a round" else None
        on_score = at(ROUNDS) if killed == "after the last evaluation" else None
        hpcfed.train(recipe, out, quiet=True, on_round=on_round, on_score=on_score)
    again = hpcfed.train(recipe, out, quiet=True, resume=True)
    same = ("kept_round", "fingerprint", "metric_after", "loss_after", "scored_at", "rounds", "status")
    assert {key: again.summary[key] for key in same} == {key: whole.summary[key] for key in same}
    assert again.orbit and whole.orbit and again.orbit.read_bytes() == whole.orbit.read_bytes()


def test_a_run_that_kept_a_round_goes_on_from_its_last_one(settings: list[str], tmp_path: Path, whole: hpcfed.Result):
    out, more = tmp_path / "run", recipe_of(settings, *METHODS["votes"], "rounds=8")
    hpcfed.train(recipe_of(settings, *METHODS["votes"]), out, quiet=True)
    with pytest.raises(Killed):
        hpcfed.train(more, out, quiet=True, resume=True, on_round=at(7))
    assert hpcfed.read_orbit(out).rounds == 7  # it is on its way again
    assert json.loads((out / "summary.json").read_text())["status"] == "interrupted"
    found = hpcfed.train(more, out, quiet=True, resume=True)
    right = hpcfed.train(more, tmp_path / "right", quiet=True)
    assert found.summary["kept_round"] == right.summary["kept_round"] and found.orbit and right.orbit
    assert found.orbit.read_bytes() == right.orbit.read_bytes()


def test_an_interrupted_run_keeps_nothing_yet(settings: list[str], tmp_path: Path):
    def ask(line: dict[str, Any]) -> None:
        if line["t"] == 4:
            signal.raise_signal(signal.SIGTERM)

    told = hpcfed.train(recipe_of(settings, *METHODS["votes"]), tmp_path, quiet=True, on_round=ask).summary
    assert told["status"] == "interrupted" and told["kept_round"] is None


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["algorithm.name=fedsgd"], "keep_best=true: fedsgd leaves no orbit"),
        (["algorithm.name=fedavg"], "keep_best=true: fedavg leaves no orbit"),
        (["eval_every=0"], "keep_best=true: with eval_every=0 there are the first and the last round only"),
        (["privacy.mechanism=local", "privacy.epsilon=1"], 'keep_best=true: .*privacy.mechanism="local" gives no acc'),
        (["privacy.mechanism=central", "privacy.epsilon=1"], 'privacy.mechanism="central" gives no account of'),
        ([], r"keep_best=true: no split dev is evaluated \(test\); set task.dev"),
    ],
)
def test_what_cannot_keep_its_best_says_why(tmp_path: Path, more: list[str], said: str):
    with pytest.raises(ConfigError, match=said):
        hpcfed.train(tiny("keep_best=true", *more), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run" / "journal").exists()


def test_another_base_model_in_the_end_is_no_result(settings: list[str], tmp_path: Path):
    """The base is loaded again: it must be what it was."""
    folder = save_tiny_folder(tmp_path, "opt")
    other = save_tiny_folder(tmp_path / "other", "opt", seed=1)

    def swap(line: dict[str, Any]) -> None:
        if line["t"] == ROUNDS:
            (other / "model.safetensors").replace(folder / "model.safetensors")

    recipe = recipe_of([*settings, f"model.name={folder}"], *METHODS["votes"])
    with pytest.raises(HpcfedError, match="the orbit starts from other weights"):
        hpcfed.train(recipe, tmp_path / "run", quiet=True, on_round=swap)
    assert not (tmp_path / "run" / "orbit.safetensors").exists()
