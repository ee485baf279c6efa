"""What a run says of itself: where its time went, the sign error, notes, its summary; and what a private one keeps."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from hpcfed.clock import SHARES
from hpcfed.messages import Outcome
from hpcfed.runs.agreement import pairs
from hpcfed.runs.folder import RunFolder
from hpcfed.runs.record import FolderRecord
from hpcfed.tasks.evaluate import Score
from hpcfed.train.log import log_round, log_scores, summary_of
from hpcfed.train.loop import run_all_rounds
from hpcfed.train.round import WINDOW, State
from tests.support.toy import ROUNDS, recorded, toy_run


def test_a_run_tells_where_its_time_went(monkeypatch: pytest.MonkeyPatch, tmp_path):
    run = recorded(toy_run(monkeypatch, check_every=15), tmp_path / "a")
    summary, records = run_all_rounds(run), run.record.records()
    run.record.close()
    told = [r for r in records if "timed" in r]
    assert [(r["t"], r["timed"]) for r in told] == [(15, 15), (30, 15), (40, 10)]
    assert all(r["time"]["waiting"] == 0 and r["slowest_row"] == 0 for r in told)  # alone
    split, rounds = summary["time_split"], [r["time"] for r in records if "loss" in r and "time" in r]
    assert len(rounds) == ROUNDS and list(split) == list(SHARES) and min(split.values()) >= 0
    for whole in (sum(split.values()) * ROUNDS, sum(sum(parts.values()) for parts in rounds)):
        assert whole == pytest.approx(summary["seconds"], abs=1e-4)  # the parts are rounded to 0.1 microseconds


@pytest.mark.parametrize("mechanism", ["local", "central"])
def test_a_private_run_does_not_tell_where_its_time_went(monkeypatch: pytest.MonkeyPatch, tmp_path, mechanism: str):
    run = recorded(toy_run(monkeypatch, privacy={"mechanism": mechanism, "epsilon": 2}), tmp_path / "a")
    assert run_all_rounds(run)["time_split"] is None and not any("time" in r for r in run.record.records())
    run.record.close()


def test_the_window_of_the_sign_error_is_bounded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    run, state = recorded(toy_run(monkeypatch), tmp_path), State()
    sums, cast = np.array([3], np.int32), np.array([5], np.int32)
    with run.record as record:
        record.begin(500, 0, False)
        for t in range(WINDOW + 30):
            state.t = t + 1
            log_round(run, state, Outcome(1.0, sums=sums, cast=cast), last=False)
    records = run.record.records()
    run.record.close()
    assert len(state.pairs) == WINDOW and set(state.pairs) == {pairs(sums, cast)}
    assert records[-1]["sign_error"] == pytest.approx((1 - math.sqrt(pairs(sums, cast))) / 2)


def test_what_the_probe_notes_is_said_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = toy_run(monkeypatch, mesh={"graphs": True})
    run.record = FolderRecord(RunFolder.create(tmp_path, "rounds = 1\n", {}))
    graphs = run.probe.graphs
    assert graphs
    graphs.notes.append("mesh.graphs: a note")
    with run.record as record:
        record.begin(500, 0, False)
        for t in range(2):
            log_round(run, State(t + 1), Outcome(1.0), last=False)
    run.record.close()
    said = "".join(capsys.readouterr())
    assert said.count("mesh.graphs: a note") == 1 and not graphs.notes


def test_every_log_every_th_round_and_the_last_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    run = recorded(toy_run(monkeypatch, log_every=3), tmp_path)
    with run.record as record:
        record.begin(8, 0, False)
        for t in range(1, 9):
            outcome = Outcome(1.0, payload_bytes=5, sums=np.array([t], np.int32), cast=np.array([8], np.int32))
            log_round(run, State(t, payload_bytes=5 * t, seconds=0.25 * t), outcome, last=t == 8)
    lines = run.record.records()
    run.record.close()
    assert [line["t"] for line in lines] == [3, 6, 8] and [line["sums"] for line in lines] == [[3], [6], [8]]
    assert [line["wire_payload_bytes"] for line in lines] == [15, 30, 40] and lines[0]["payload_bytes"] == 5
    assert [line["seconds"] for line in lines] == [0.75, 1.5, 2.0]
    assert [line["agreement"] for line in lines] == [(1 + t / 8) / 2 for t in (3, 6, 8)]


def test_a_private_round_tells_its_votes_and_nothing_of_a_client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    run = recorded(toy_run(monkeypatch, privacy={"mechanism": "local", "epsilon": 2}), tmp_path)
    sums, cast = np.array([3], np.int32), np.array([5], np.int32)
    with run.record as record:
        record.begin(1, 0, False)
        log_round(run, State(1), Outcome(0.25, abstained=2, sums=sums, cast=cast), last=True)
    (line,) = run.record.records()
    run.record.close()
    assert line["loss"] is None and line["agreement"] == 0.8 and line["sums"] == [3]
    assert not {"abstained", "pairs", "sign_error", "time"} & line.keys()


def test_a_summary_is_of_the_first_and_the_last_scores(monkeypatch: pytest.MonkeyPatch):
    run = toy_run(monkeypatch)
    scores = {t: {"test": Score(t / 100, 1.0 - t / 100, 60)} for t in (0, 10, 30)}
    told = summary_of(run, State(40, seconds=8.0, payload_bytes=7, scores=scores), "finished")
    assert (told["metric_before"], told["metric_after"], told["loss_before"], told["loss_after"]) == (0, 0.3, 1, 0.7)
    assert told["splits"] == {"test": {"before": 0.0, "after": 0.3}} and told["split"] == "test"
    assert (told["rounds"], told["seconds_per_round"], told["wire_payload_bytes"]) == (40, 0.2, 7)
    assert told["clients"] == 5 and told["fingerprint_base"] == run.header.base_fingerprint
    assert json.loads(json.dumps(told)) == told


def test_a_summary_says_what_is_unknown(monkeypatch: pytest.MonkeyPatch):
    told = summary_of(toy_run(monkeypatch), State(10, scores={10: {"test": Score(0.5, 0.25, 60)}}), "interrupted")
    assert told["metric_before"] is told["loss_before"] is told["privacy"] is None
    assert told["metric_after"] == 0.5 and told["splits"] == {"test": {"before": None, "after": 0.5}}


@pytest.mark.parametrize("mechanism", ["none", "local"])
def test_a_score_has_all_metrics_and_of_a_private_run_no_owners(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mechanism: str
) -> None:
    privacy = {"mechanism": mechanism} | ({"epsilon": 2} if mechanism != "none" else {})
    run = recorded(toy_run(monkeypatch, privacy=privacy), tmp_path / "a")
    score = Score(0.5, 0.25, 60, "accuracy", {"accuracy": 0.5, "macro-f1": 0.25}, 0.75, 0.125, 0.1)
    state = State(0, scores={0: {"test": score}})
    log_scores(run, state)
    (line,), told = run.record.records(), summary_of(run, state, "finished")
    run.record.close()
    tell = mechanism == "none"
    known = {key for key in score.data() if tell or key not in ("worst", "spread")}
    assert line == {"t": 0, "split": "test"} | {key: score.data()[key] for key in known}
    assert told["metrics_before"] == told["metrics_after"] == score.values and told["majority"] == 0.75
    assert [told["worst_after"], told["spread_before"]] == ([0.125, 0.1] if tell else [None, None])
