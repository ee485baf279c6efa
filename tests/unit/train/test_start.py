"""hpcfed.train as a user calls it: twice in a process, with callbacks, stopped and gone on with, started over."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import hpcfed
from hpcfed.cli.tables import comparison_table, summary_table
from hpcfed.errors import ConfigError, HpcfedError
from hpcfed.runs.plots import draw
from hpcfed.runs.read import comparison
from hpcfed.tasks.evaluate import evaluate as tasks_evaluate
from hpcfed.train.start import PastAttempts, earlier_attempts, note_begun
from hpcfed.transport.launch import Launch
from hpcfed.transport.solo import SoloTransport
from tests.support.digits import TINY, lines, tiny
from tests.support.folders import contents, file_size
from tests.support.runs import is_picture

#: Methods by what they leave: decisions, decisions with a walk behind them, the weights themselves.
METHODS = {
    "feedsign": [],
    "fedkseed-pro": ["algorithm.name=fedkseed-pro", "algorithm.pool_size=8", "algorithm.local_steps=2"],
    "fedsgd": ["algorithm.name=fedsgd", "save_every=2"],
}


class Stop(Exception):
    """A user's own."""


def at(t: int) -> Any:
    """A callback that raises when the run comes to t."""

    def stop(line: dict[str, Any]) -> None:
        if line["t"] == t:
            raise Stop

    return stop


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, hpcfed.Result]:
    """A finished run of every method."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return {name: hpcfed.train(tiny(*more), folder / name, quiet=True) for name, more in METHODS.items()}


def test_what_a_run_comes_to(undisturbed: dict[str, hpcfed.Result]):
    result = undisturbed["feedsign"]
    assert result.summary == json.loads((result.folder / "summary.json").read_text())
    assert result.summary["status"] == "finished" and result.summary["rounds"] == 6
    assert result.orbit == result.folder / "orbit.safetensors" and result.weights is None
    orbit = hpcfed.read_orbit(result.folder)
    assert orbit.fingerprint == result.summary["fingerprint"] and orbit.rounds == len(orbit.decisions) == 6
    assert isinstance(result.model, torch.nn.Module) and not (result.folder / "lock").exists()
    dense = undisturbed["fedsgd"]
    assert dense.orbit is None and dense.weights == dense.folder / "weights.safetensors" and dense.weights.is_file()


def test_two_runs_in_one_process_are_one_run(undisturbed: dict[str, hpcfed.Result], tmp_path: Path):
    """By the recipe itself, and by its name with overrides; what the first has left in the process changes nothing."""
    first = undisturbed["feedsign"]
    for recipe, overrides in ((tiny(), []), ("digits", TINY), (first.folder / "recipe.toml", [])):
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        again = hpcfed.train(recipe, out, overrides=overrides, quiet=True)
        assert again.summary["fingerprint"] == first.summary["fingerprint"]
        assert (out / "orbit.safetensors").read_bytes() == (first.folder / "orbit.safetensors").read_bytes()
    other = hpcfed.train(tiny("seed=1"), tmp_path / "other", quiet=True)
    assert other.summary["fingerprint"] != first.summary["fingerprint"]


def test_callbacks_get_the_lines_of_metrics_jsonl(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rounds, scores = list[dict[str, Any]](), list[dict[str, Any]]()
    result = hpcfed.train(tiny(), tmp_path / "run", on_round=rounds.append, on_score=scores.append)
    written = lines(result.folder)
    assert rounds == [line for line in written if not {"split", "timed"} & line.keys()]
    assert scores == [line for line in written if "split" in line]
    assert [line["t"] for line in rounds] == [1, 2, 3, 4, 5, 6] and [line["t"] for line in scores] == [0, 3, 6]
    assert scores[-1]["loss"] == result.summary["loss_after"]
    said = capsys.readouterr()
    assert said.out == "" and "loading digits-vit and the data of digits" in said.err  # results alone go to stdout
    assert "train: 700 rows of the package's digits" in said.err
    read = json.loads((result.folder / "partition.json").read_text())["read"]
    assert list(read) == ["train", "test"] and read["train"]["kept"] == read["train"]["rows"] == 700


def test_callbacks_see_also_the_rounds_that_are_not_logged(tmp_path: Path):
    seen = list[int]()
    hpcfed.train(tiny("log_every=4"), tmp_path / "run", quiet=True, on_round=lambda line: seen.append(line["t"]))
    assert seen == [1, 2, 3, 4, 5, 6]
    assert [line["t"] for line in lines(tmp_path / "run") if "uplink_bits_per_client" in line] == [4, 6]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    ("stopped", "done"),
    [({"on_round": at(1)}, 1), ({"on_round": at(5)}, 5), ({"on_score": at(0)}, 0), ({"on_score": at(3)}, 3)],
)
def test_a_run_that_a_callback_ended_goes_on_as_if_nothing_had_been(
    undisturbed: dict[str, hpcfed.Result], tmp_path: Path, name: str, stopped: dict[str, Any], done: int
):
    out, recipe, seen = tmp_path / "run", tiny(*METHODS[name]), list[int]()
    with pytest.raises(Stop):
        hpcfed.train(recipe, out, quiet=True, **stopped)
    assert not (out / "summary.json").exists() and not (out / "lock").exists()
    with pytest.raises(HpcfedError, match=r"holds an unfinished run .*--resume"):
        hpcfed.train(recipe, out, quiet=True)
    again = hpcfed.train(recipe, out, quiet=True, resume=True, on_round=lambda line: seen.append(line["t"]))
    whole = undisturbed[name]
    same = ("fingerprint", "status", "rounds", "metric_before", "metric_after", "loss_before", "loss_after")
    assert [again.summary[key] for key in same] == [whole.summary[key] for key in same]
    kept = done - done % recipe.save_every if recipe.algorithm.traits.dense else done
    assert seen == list(range(kept + 1, 7))  # only what was left to do
    for file in (whole.orbit, whole.weights):
        assert file is None or (out / file.name).read_bytes() == file.read_bytes()
    rounds = [
        [line["t"] for line in lines(folder) if "uplink_bits_per_client" in line] for folder in (out, whole.folder)
    ]
    assert rounds[0] == rounds[1] == [1, 2, 3, 4, 5, 6]


def test_resume_of_nothing_is_a_new_run(undisturbed: dict[str, hpcfed.Result], tmp_path: Path):
    found = hpcfed.train(tiny(), tmp_path / "run", quiet=True, resume=True)
    assert found.summary["fingerprint"] == undisturbed["feedsign"].summary["fingerprint"]


def test_an_interrupted_run_is_gone_on_with_by_the_same_recipe_only(tmp_path: Path):
    out = tmp_path / "run"
    with pytest.raises(Stop):
        hpcfed.train(tiny(), out, quiet=True, on_round=at(2))
    with pytest.raises(HpcfedError, match=r"algorithm\.lr: 0\.002 -> 1\.0"):
        hpcfed.train(tiny("algorithm.lr=1"), out, quiet=True, resume=True)
    done = hpcfed.train(tiny("eval_every=0", "log_every=5"), out, quiet=True, resume=True)  # these may change
    assert done.summary["status"] == "finished" and done.summary["rounds"] == 6


def test_force_starts_over_and_keeps_the_old_run(tmp_path: Path):
    out = tmp_path / "run"
    first = hpcfed.train(tiny(), out, quiet=True)
    before = contents(out)
    for options in ({}, {"resume": True}):
        with pytest.raises(HpcfedError, match="holds a finished run"):
            hpcfed.train(tiny(), out, quiet=True, **options)
    with pytest.raises(ConfigError, match="layers"):  # a wrong setting does not cost the old run
        hpcfed.train(tiny('algorithm.train_only=["layers"]'), out, quiet=True, force=True)
    assert contents(out) == before
    again = hpcfed.train(tiny(), out, quiet=True, force=True)
    assert again.summary["fingerprint"] == first.summary["fingerprint"]
    assert contents(tmp_path / "run.old-1") == before
    with pytest.raises(HpcfedError, match="give one of them"):
        hpcfed.train(tiny(), out, quiet=True, force=True, resume=True)


def test_a_folder_that_cannot_be_is_said_before_anything_is_loaded(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(HpcfedError, match="is a file or lies below one"):
        hpcfed.train(tiny("model.name=/nowhere"), tmp_path / "file" / "run", quiet=True)


def test_a_job_that_nobody_starts_anew_has_no_past(tmp_path: Path):
    note_begun(Launch(), tmp_path)
    assert earlier_attempts(SoloTransport(), Launch(), tmp_path, 6) == PastAttempts(False, None)
    assert not list(tmp_path.iterdir())


CONSTANT = "algorithm.schedule=constant"


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(("first", "more"), [(4, 6), (1, 6), (5, 6)])
def test_a_finished_run_goes_on_as_one_run_of_that_length(tmp_path: Path, name: str, first: int, more: int):
    def recipe(rounds: int) -> Any:
        return tiny(*METHODS[name], CONSTANT, f"rounds={rounds}")

    out, whole = tmp_path / "run", hpcfed.train(recipe(more), tmp_path / "whole", quiet=True)
    hpcfed.train(recipe(first), out, quiet=True)
    sealed = contents(out)
    with pytest.raises(HpcfedError, match=r"for more rounds: --resume --set rounds=MORE"):
        hpcfed.train(recipe(first), out, quiet=True, resume=True)
    with pytest.raises(Stop):  # before anything else is sealed
        hpcfed.train(recipe(more), out, quiet=True, resume=True, on_round=at(first + 1))
    if whole.orbit:
        assert contents(out)["orbit.safetensors"] == sealed["orbit.safetensors"]
        assert hpcfed.read_orbit(out).rounds == first + 1
    assert json.loads((out / "summary.json").read_text())["status"] == "interrupted"
    done = hpcfed.train(recipe(more), out, quiet=True, resume=True)
    same = ("fingerprint", "status", "rounds", "metric_before", "metric_after", "loss_after", "scored_at")
    assert [done.summary[key] for key in same] == [whole.summary[key] for key in same]
    for file in (whole.orbit, whole.weights):
        assert file is None or (out / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ([CONSTANT, "rounds=2"], "nothing to do there"),
        ([CONSTANT, "rounds=4"], "nothing to do there"),
        ([CONSTANT, "rounds=6", "seed=1"], "seed: 0 -> 1"),
        ([CONSTANT, "rounds=6", "algorithm.lr=1"], "algorithm.lr"),
        (["algorithm.schedule=linear", "rounds=6"], "algorithm.schedule: "),
        (["algorithm.schedule=cosine", "rounds=6"], "algorithm.schedule: "),
    ],
)
def test_a_finished_run_gets_more_rounds_and_nothing_else(tmp_path: Path, settings: list[str], said: str):
    hpcfed.train(tiny(CONSTANT, "rounds=4"), tmp_path / "run", quiet=True)
    before = contents(tmp_path / "run")
    with pytest.raises(HpcfedError, match=said):
        hpcfed.train(tiny(*settings), tmp_path / "run", quiet=True, resume=True)
    assert contents(tmp_path / "run") == before


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_steps_that_depend_on_the_rounds_are_not_gone_on_with(tmp_path: Path, schedule: str):
    setting = f"algorithm.schedule={schedule}"
    hpcfed.train(tiny(setting, "rounds=4"), tmp_path / "run", quiet=True)
    before = contents(tmp_path / "run")
    with pytest.raises(HpcfedError, match=r"rounds: 4 -> 6: .*hpcfed orbit replay .*model\.name=FOLDER"):
        hpcfed.train(tiny(setting, "rounds=6"), tmp_path / "run", quiet=True, resume=True)
    assert contents(tmp_path / "run") == before


def test_a_run_has_no_fewer_rounds_than_it_has_run(tmp_path: Path):
    with pytest.raises(Stop):
        hpcfed.train(tiny(CONSTANT), tmp_path / "run", quiet=True, on_round=at(4))
    with pytest.raises(HpcfedError, match="rounds=3: the run has 4 rounds behind it already"):
        hpcfed.train(tiny(CONSTANT, "rounds=3"), tmp_path / "run", quiet=True, resume=True)
    assert hpcfed.train(tiny(CONSTANT, "rounds=4"), tmp_path / "run", quiet=True, resume=True).summary["rounds"] == 4


@pytest.mark.parametrize("name", METHODS)
def test_a_run_without_evaluation(tmp_path: Path, name: str, undisturbed: dict[str, hpcfed.Result]):
    out, recipe = tmp_path / "run", tiny(*METHODS[name], "task.eval_splits=[]")
    with pytest.raises(Stop):
        hpcfed.train(recipe, out, quiet=True, on_round=at(6))  # all rounds are on the trail
    done = hpcfed.train(recipe, out, resume=True).summary
    unknown = ("metric_before", "metric_after", "loss_before", "loss_after", "scored_at", "split")
    assert done["status"] == "finished" and not any(done[key] is not None for key in unknown)
    assert done["fingerprint"] == undisturbed[name].summary["fingerprint"] and done["splits"] == {}
    draw([out], tmp_path / "a.png")
    assert is_picture(tmp_path / "a.png")
    summary_table(done), comparison_table(comparison([out, undisturbed[name].folder]))
    with pytest.raises(HpcfedError, match=r"task\.eval_splits=\[\]: there is nothing to evaluate"):
        hpcfed.evaluate(out)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
@pytest.mark.parametrize(("when", "rounds", "known"), [(0, 0, None), (3, 3, None), (6, 6, 3)])
def test_a_signal_ends_an_evaluation_which_is_made_up_for(
    monkeypatch: pytest.MonkeyPatch, undisturbed: dict[str, hpcfed.Result], tmp_path: Path, number: signal.Signals,
    when: int, rounds: int, known: int | None,
):  # fmt: skip
    calls, batches = list[int](), list[int]()

    def evaluate(forward: Any, *rest: Any) -> Any:
        calls.append(3 * len(calls))

        def ask(inputs: Any) -> Any:
            if calls[-1] == when:
                batches.append(1)
                if len(batches) == 2:
                    signal.raise_signal(number)
            return forward(inputs)

        return tasks_evaluate(ask, *rest)

    monkeypatch.setattr("hpcfed.train.loop.evaluate", evaluate)
    recipe, whole = tiny("eval_batch=8"), undisturbed["feedsign"]
    found = hpcfed.train(recipe, tmp_path / "run", quiet=True)
    monkeypatch.undo()
    assert len(batches) == 2  # of five
    told = found.summary
    assert (told["status"], told["rounds"], told["scored_at"], found.orbit) == ("interrupted", rounds, known, None)
    assert (told["metric_after"] is None) == (known is None)
    again = hpcfed.train(recipe, tmp_path / "run", quiet=True, resume=True)
    assert again.summary["fingerprint"] == whole.summary["fingerprint"] and again.summary["status"] == "finished"
    scored = [line["t"] for line in lines(tmp_path / "run") if "split" in line]
    assert scored == [0, 3, 6]
    assert (again.orbit or Path()).read_bytes() == (whole.orbit or Path()).read_bytes()


@pytest.mark.parametrize("name", METHODS)
def test_a_disk_that_is_full_while_sealing_loses_nothing(
    undisturbed: dict[str, hpcfed.Result], tmp_path: Path, name: str
):
    out, recipe, whole = tmp_path / "run", tiny(*METHODS[name]), undisturbed[name]
    full = file_size(100)
    try:
        with pytest.raises(HpcfedError, match="File too large"):
            hpcfed.train(recipe, out, quiet=True, on_score=lambda line: full.__enter__() if line["t"] == 6 else None)
    finally:
        full.__exit__(None, None, None)
    assert hpcfed.train(recipe, out, quiet=True, resume=True).summary["fingerprint"] == whole.summary["fingerprint"]
