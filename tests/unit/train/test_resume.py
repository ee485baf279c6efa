"""What a resumed run finds again: rounds, weights, scores, seconds, bytes, votes; and what it refuses to go on with."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from hpcfed.errors import ConfigError
from hpcfed.orbit import read_journal
from hpcfed.tasks.evaluate import Score
from hpcfed.train.loop import run_all_rounds
from hpcfed.train.resume import resume
from hpcfed.train.round import State
from hpcfed.train.run import OrbitRun
from tests.support.toy import ROUNDS, Heard, recorded, toy_run

KEPT = 25  # rounds that the crash leaves in the journal


def crashed(path: Path, run: OrbitRun, keep: int = KEPT) -> list[dict[str, Any]]:
    """The folder of a run that died after `keep` rounds; all that it had logged, some of it about lost rounds."""
    run_all_rounds(recorded(run, path))
    records = run.record.records()
    run.record.close()
    journal = path / "journal"
    size = 8 + run.header.round_bytes + 4  # t, decision, checksum
    rounds = len(read_journal(journal)[1])
    journal.write_bytes(journal.read_bytes()[: -size * (rounds - keep)])
    (path / "summary.json").unlink()
    (path / "orbit.safetensors").unlink()
    return records


def resumed(path: Path, run: OrbitRun) -> tuple[State, list[str], list[dict[str, Any]]]:
    """State and notes after `resume`, and what is left in metrics.jsonl."""
    state = State()
    try:
        with recorded(run, path, resume=True).record as record:
            resume(run, state)
            return state, list(record.notes), record.records()
    finally:
        run.record.close()


def test_everything_up_to_the_crash_is_found_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def new() -> OrbitRun:
        return toy_run(monkeypatch, eval_every=10)

    records = crashed(tmp_path, new())
    run = new()
    state, notes, left = resumed(tmp_path, run)
    assert state.t == KEPT and notes[-1] == f"resumed after round {KEPT}"
    assert state.last == read_journal(tmp_path / "journal")[1][-1]
    assert left == [record for record in records if record["t"] <= KEPT]
    rounds = [record for record in left if "sums" in record]
    assert list(state.pairs) == [record["pairs"] for record in rounds] and len(rounds) == KEPT
    assert state.seconds == pytest.approx(rounds[-1]["seconds"]) and state.seconds > 0
    scored = [record for record in left if "split" in record]
    known = {r["t"]: Score(r["value"], r["loss"], r["examples"], majority=r["majority"]) for r in scored}
    assert {t: {"test": score} for t, score in known.items()} == state.scores
    assert sorted(state.scores) == [0, 10, 20]

    other = toy_run(monkeypatch, eval_every=10)
    for t, decision in enumerate(read_journal(tmp_path / "journal")[1]):
        other.mover.apply([other.method.decode(decision, t)])
    assert run.problem.weights.fingerprint() == other.problem.weights.fingerprint()


def test_a_row_without_a_folder_learns_the_scores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """What is evaluated next depends on what has been: every row must know."""
    crashed(tmp_path, toy_run(monkeypatch, eval_every=10))
    run, air = toy_run(monkeypatch, eval_every=10), list[bytes]()
    run.transport = Heard(air)
    first, _, _ = resumed(tmp_path, run)
    other, state = toy_run(monkeypatch, eval_every=10), State()
    other.transport = Heard(air)
    resume(other, state)
    assert other.record.notes == ()
    assert (state.t, state.last, state.scores, state.seconds) == (first.t, first.last, first.scores, first.seconds)
    assert other.problem.weights.fingerprint() == run.problem.weights.fingerprint()


def test_rounds_that_were_not_logged_are_like_the_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    crashed(tmp_path, toy_run(monkeypatch, log_every=10))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for record in lines:
        if "sums" in record:
            record |= {"seconds": record["t"] * 2.0, "wire_payload_bytes": record["t"] * 30}
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in lines))
    state, _, _ = resumed(tmp_path, toy_run(monkeypatch, log_every=10))
    assert state.t == KEPT and state.seconds == 2.0 * KEPT and state.payload_bytes == 30 * KEPT


def test_a_torn_or_missing_log_costs_scores_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    crashed(tmp_path, toy_run(monkeypatch, eval_every=10))
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    (tmp_path / "metrics.jsonl").write_text(
        "\n".join(line for line in lines if '"split"' not in line) + '\n{"t": 3, "sp'
    )
    state, _, _ = resumed(tmp_path, toy_run(monkeypatch, eval_every=10))
    assert state.t == KEPT and state.scores == {}
    (tmp_path / "metrics.jsonl").unlink()
    state, _, _ = resumed(tmp_path, toy_run(monkeypatch, eval_every=10))
    assert (state.t, state.scores, state.seconds, state.payload_bytes, len(state.pairs)) == (KEPT, {}, 0, 0, 0)


def test_a_score_of_some_splits_is_forgotten(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Killed between two splits: the round is evaluated again, whole."""
    crashed(tmp_path, toy_run(monkeypatch, eval_every=10))
    run = toy_run(monkeypatch, eval_every=10)
    run.problem.task.splits["other"] = run.problem.task.train
    state, _, _ = resumed(tmp_path, run)
    assert state.t == KEPT and state.scores == {}


def test_a_private_run_remembers_who_voted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    clients = {"per_round": 2}
    private = {"mechanism": "local", "epsilon": 1.0}

    def new() -> OrbitRun:
        return toy_run(monkeypatch, {"clients": clients}, privacy=private)

    crashed(tmp_path, new())
    run = new()
    _, _, left = resumed(tmp_path, run)
    votes = Counter(k for t in range(KEPT) for k in run.pool.cohort(t))
    directions = run.recipe.algorithm.directions
    assert run.privacy.summary()["votes_of_one_client"] == (max(votes.values()) + 1) * directions
    assert max(votes.values()) < KEPT  # and the round in flight may have got out
    assert all(record["loss"] is None and "abstained" not in record for record in left if "split" not in record)
    again = new()
    resumed(tmp_path, again)
    assert again.privacy.summary()["votes_of_one_client"] == (max(votes.values()) + 2) * directions


def test_a_resumed_run_ends_as_if_nothing_had_been(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for i, name in enumerate(("feedsign", "fedkseed-pro", "mezo")):
        sections = {"algorithm": {"name": name} | ({"pool_size": 8, "local_steps": 3} if i == 1 else {})}
        out = tmp_path / name
        whole = recorded(toy_run(monkeypatch, sections), tmp_path / f"{name} whole")
        expected = run_all_rounds(whole)
        whole.record.close()
        crashed(out, toy_run(monkeypatch, sections))
        again = recorded(toy_run(monkeypatch, sections), out, resume=True)
        found = run_all_rounds(again)
        again.record.close()
        assert (found["fingerprint"], found["rounds"]) == (expected["fingerprint"], ROUNDS)
        assert found["loss_before"] == expected["loss_before"] and found["seconds"] > 0


@pytest.mark.parametrize("changed", ["data", "lr"])
def test_what_is_not_gone_on_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changed: str):
    crashed(tmp_path, toy_run(monkeypatch))
    journal = (tmp_path / "journal").read_bytes()
    run = toy_run(monkeypatch, {"algorithm": {"lr": 0.06}} if changed == "lr" else None)
    if changed == "data":
        run.data = "other"
    with pytest.raises(
        ConfigError,
        match="changed since the run began" if changed == "data" else r"begun with other settings .*lr: 0\.05 -> 0\.06",
    ):
        resumed(tmp_path, run)
    assert (tmp_path / "journal").read_bytes() == journal


def test_all_that_a_score_says_is_found_again_and_what_an_older_run_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    score = Score(0.5, 0.25, 60, "f1", {"f1": 0.5, "em": 0.25, "accuracy": 0.5}, 0.75, 0.125, 0.1)
    old = {"t": 0, "split": "test", "metric": "f1", "value": 0.5, "loss": 0.25, "examples": 60}
    crashed(tmp_path, toy_run(monkeypatch))
    log = tmp_path / "metrics.jsonl"
    for line, found in (({"t": 0, "split": "test", **score.data()}, score), (old, Score(0.5, 0.25, 60, "f1"))):
        log.write_text(json.dumps(line) + "\n")
        assert resumed(tmp_path, toy_run(monkeypatch))[0].scores[0] == {"test": found}
