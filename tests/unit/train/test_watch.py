"""Clients that abstain are counted, named once, and cost nobody else's loss; slopes of exactly 0 are counted, too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpcfed.errors import ConfigError
from hpcfed.train.loop import run_all_rounds
from hpcfed.train.watch import EARLY
from tests.support.toy import CLIENTS, ROUNDS, recorded, toy_run

Lines = list[dict[str, Any]]


def watched(
    monkeypatch: pytest.MonkeyPatch, path: Path, change: Any, sections: dict | None = None, **top: Any
) -> tuple[dict[str, Any], Lines, list[str]]:
    """Summary, lines of rounds and notes of a run in which `change` happens to what the clients find."""
    run, notes = recorded(toy_run(monkeypatch, sections, **top), path), list[str]()
    real = run.clients.slopes

    def slopes(t: int, steps: Any) -> Any:
        found = real(t, steps)
        values, losses = found.values.copy(), found.losses.copy()
        change(t, found.clients, values, losses)
        run.clients.zeros = int((values == 0).sum())
        return replace(found, values=values, losses=losses)

    monkeypatch.setattr(run.clients, "slopes", slopes)
    monkeypatch.setattr(run.record, "note", notes.append)
    try:
        summary = run_all_rounds(run)
        return summary, [line for line in run.record.records() if "uplink_bits_per_client" in line], notes
    finally:
        run.record.close()


def silenced(*which: int, first: int = 0) -> Any:
    """These clients have no finite loss from round `first` on."""

    def change(t: int, clients: Any, values: np.ndarray, losses: np.ndarray) -> None:
        for k, client in enumerate(clients):
            if client in which and t >= first:
                values[k], losses[k] = np.nan, np.nan

    return change


SHORT = {"local_steps": 2}
METHODS: dict[str, dict[str, Any]] = {
    "feedsign": {},
    "zo-fedsgd": {},
    "zo-fedavg": SHORT,
    "fedkseed": SHORT | {"pool_size": 8},
    "fedkseed-pro": SHORT | {"pool_size": 8},
}


@pytest.mark.parametrize("name", METHODS)
def test_who_abstains_is_counted_and_named_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str):
    algorithm = {"algorithm": {"name": name, **METHODS[name]}}
    summary, lines, notes = watched(monkeypatch, tmp_path, silenced(3), algorithm, rounds=5)
    assert [line["abstained"] for line in lines] == [1] * 5 and [line["abstentions"] for line in lines] == [
        1,
        2,
        3,
        4,
        5,
    ]
    assert all(line["loss"] > 0 for line in lines) and [line.get("abstainers") for line in lines] == [[3], *[None] * 4]
    assert (summary["abstentions"], summary["abstainers"]) == (5, [3])
    assert len([note for note in notes if "client 3 abstains" in note]) == 1


@pytest.mark.parametrize(
    ("change", "ballots", "who"),
    [
        (silenced(), 0, []),
        (silenced(0), ROUNDS, [0]),
        (silenced(4, first=7), ROUNDS - 7, [4]),
        (silenced(1, 2), 2 * ROUNDS, [1, 2]),
        (silenced(0, 1, 2, 3), 4 * ROUNDS, [0, 1, 2, 3]),
        (silenced(2, first=ROUNDS - 1), 1, [2]),
    ],
)
def test_the_loss_is_that_of_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, change: Any, ballots: int, who: list[int]
):
    summary, lines, _ = watched(monkeypatch, tmp_path, change, check_every=10)
    assert (summary["abstentions"], summary["abstainers"], summary["status"]) == (ballots, who, "finished")
    assert len(lines) == ROUNDS and all(line["loss"] > 0 for line in lines)


@pytest.mark.parametrize("name", ["fedsgd", "fedavg"])
def test_dense_methods_name_them_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str):
    run = recorded(toy_run(monkeypatch, {"algorithm": {"name": name}}, rounds=3), tmp_path)
    first = run.first_order  # type: ignore[attr-defined]
    real = first._sent
    monkeypatch.setattr(first, "_sent", lambda client, *rest: None if client == 2 else real(client, *rest))
    summary = run_all_rounds(run)
    run.record.close()
    assert (summary["abstentions"], summary["abstainers"]) == (3, [2])


@pytest.mark.parametrize("mechanism", ["local", "central"])
def test_a_private_run_tells_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mechanism: str):
    private = {"mechanism": mechanism, "epsilon": 2}
    summary, lines, notes = watched(monkeypatch, tmp_path, silenced(3), rounds=12, privacy=private)
    assert summary["abstentions"] is summary["abstainers"] is None
    assert not any("abstain" in note for note in notes) and not {"zeros", "abstained"} & lines[0].keys()


def zeros(share: float, until: int = ROUNDS) -> Any:
    """So large a share of the slopes is exactly 0."""

    def change(t: int, clients: Any, values: np.ndarray, losses: np.ndarray) -> None:
        if t < until:
            values[: round(share * len(values))] = 0

    return change


@pytest.mark.parametrize("rounds", [2, 9, EARLY, ROUNDS])
def test_a_run_whose_slopes_are_all_0_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rounds: int):
    where = min(rounds, EARLY)
    with pytest.raises(
        ConfigError, match=rf"algorithm\.mu=0\.01: all {where * CLIENTS} slopes up to round {where} are"
    ):
        watched(monkeypatch, tmp_path, zeros(1), rounds=rounds)


@pytest.mark.parametrize(("share", "said"), [(0, None), (0.2, "20 %"), (0.6, "60 %"), (0.8, "80 %")])
def test_some_zeros_are_a_note(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, share: float, said: str | None):
    summary, lines, notes = watched(monkeypatch, tmp_path, zeros(share), check_every=5)
    assert summary["status"] == "finished" and [line["zeros"] for line in lines] == [round(share * CLIENTS)] * ROUNDS
    told = [note for note in notes if "exactly 0" in note]
    assert len(told) == (said is not None) and all(note.startswith(f"{said} of the slopes") for note in told)


def test_zeros_later_on_end_it_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def change(t: int, clients: Any, values: np.ndarray, losses: np.ndarray) -> None:
        if t >= 15:
            values[:] = 0

    with pytest.raises(ConfigError, match="up to round 20 are exactly 0"):
        watched(monkeypatch, tmp_path, change, check_every=5)


def test_rounds_that_move_nothing_say_so(monkeypatch, tmp_path):
    def kept(t, clients, values, losses):
        pass

    for lr, said in ((1e-30, True), (1e-2, False)):
        *_, notes = watched(monkeypatch, tmp_path / f"{lr}", kept, {"algorithm": {"lr": lr}})
        assert any("rounds have moved no weight" in note for note in notes) == said
