"""All rounds: when a run is evaluated, what ends it early, and that nothing of it stays behind in the process."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpcfed.errors import DivergedError
from hpcfed.messages import Slopes, Steps
from hpcfed.orbit import load, read_journal
from hpcfed.train.loop import run_all_rounds
from tests.support.toy import ROUNDS, recorded, toy_run

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


def test_summary_log_and_orbit_of_a_run(monkeypatch: pytest.MonkeyPatch, tmp_path):
    run = recorded(toy_run(monkeypatch, eval_every=15, log_every=4), tmp_path / "a")
    summary = run_all_rounds(run)
    assert summary["status"] == "finished" and summary["rounds"] == ROUNDS
    assert summary["fingerprint"] == run.problem.weights.fingerprint() != summary["fingerprint_base"]
    assert summary["metric_after"] > summary["metric_before"] and summary["loss_after"] < summary["loss_before"]
    records = run.record.records()
    run.record.close()
    orbit = load(tmp_path / "a" / "orbit.safetensors")
    assert orbit.fingerprint == summary["fingerprint"] and orbit.rounds == ROUNDS
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
        run_all_rounds(run)
    assert run.transport.is_everywhere(error.value)  # so that several rows say it once
    run.record.close()
    assert len(read_journal(tmp_path / "a" / "journal")[1]) == 7


@pytest.mark.parametrize(
    ("eval_every", "evaluated"), [(0, [0, 40]), (1, list(range(41))), (7, [0, 7, 14, 21, 28, 35, 40]), (40, [0, 40])]
)
def test_a_run_is_evaluated_before_on_the_way_and_after(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, eval_every: int, evaluated: list[int]
):
    run = recorded(toy_run(monkeypatch, eval_every=eval_every), tmp_path)
    run_all_rounds(run)
    records = run.record.records()
    run.record.close()
    assert [record["t"] for record in records if "split" in record] == evaluated


@pytest.fixture
def handlers() -> Iterator[list[Any]]:
    """Of SIGNALS: none that would end these tests, if the run did not listen."""
    before = [signal.signal(number, lambda *_: None) for number in SIGNALS]
    yield [signal.getsignal(number) for number in SIGNALS]
    for number, handler in zip(SIGNALS, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_signal_ends_the_run_after_the_next_round_and_it_goes_on_later(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, handlers: list[Any], number: signal.Signals
):
    def ask(line: dict[str, Any]) -> None:
        if line["t"] == 5:
            signal.raise_signal(number)

    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    run = recorded(toy_run(monkeypatch), tmp_path / "a", on_round=ask)
    stopped = run_all_rounds(run)
    run.record.close()
    assert (stopped["status"], stopped["rounds"]) == ("interrupted", 6)
    assert stopped["loss_before"] and stopped["loss_after"] is stopped["scored_at"] is None  # the time may be short
    assert not (tmp_path / "a" / "orbit.safetensors").exists()
    assert [signal.getsignal(n) for n in SIGNALS] == handlers and signal.pthread_sigmask(signal.SIG_BLOCK, []) == mask
    ended = []
    for path, again in ((tmp_path / "a", True), (tmp_path / "b", False)):
        run = recorded(toy_run(monkeypatch), path, resume=again)
        ended.append(run_all_rounds(run))
        run.record.close()
    same = ("fingerprint", "rounds", "status", "metric_before", "metric_after", "loss_after")
    assert [ended[0][key] for key in same] == [ended[1][key] for key in same] and ended[0]["status"] == "finished"


def test_a_second_interrupt_ends_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, handlers: list[Any]):
    said = list[str]()

    def insist(line: dict[str, Any]) -> None:
        for time in ("once", "twice", "in vain"):
            signal.raise_signal(signal.SIGINT)
            said.append(time)

    run = recorded(toy_run(monkeypatch), tmp_path, on_round=insist)
    with pytest.raises(KeyboardInterrupt):
        run_all_rounds(run)
    run.record.close()
    assert said == ["once"]
    assert len(read_journal(tmp_path / "journal")[1]) == 1 and not (tmp_path / "summary.json").exists()


def test_a_run_of_another_thread_leaves_signals_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Only the main thread may listen to them."""
    found, heard = list[dict[str, Any]](), list[int]()
    runs = [recorded(toy_run(monkeypatch), tmp_path / name) for name in "ab"]
    alone = run_all_rounds(runs[0])
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
    try:
        other = threading.Thread(target=lambda: found.append(run_all_rounds(runs[1])))
        other.start()
        signal.raise_signal(signal.SIGTERM)
        other.join()
    finally:
        signal.signal(signal.SIGTERM, before)
    for run in runs:
        run.record.close()
    assert found[0]["fingerprint"] == alone["fingerprint"] and found[0]["rounds"] == ROUNDS and heard == [1]
