"""What differs between a method with an orbit and a dense one: the probe, the trail, how another row catches up."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from hpcfed.clock import PARTS
from hpcfed.config import METHODS
from hpcfed.orbit import read_journal
from hpcfed.train.round import State
from hpcfed.train.trail import JournalTrail, WeightsTrail
from tests.support.toy import CLASSES, FEATURES, Heard, recorded, toy_run

WEIGHTS = (FEATURES + 1) * CLASSES
#: Method -> bits of a client and round, up and down.
BITS: dict[str, tuple[int, int]] = {"feedsign": (1, 1), "fedsgd": (32 * WEIGHTS, 32 * WEIGHTS), "mezo": (0, 0)}


def short(name: str) -> dict[str, dict[str, object]]:
    """A method with few local steps."""
    return {"algorithm": {"name": name} | ({"local_steps": 2, "pool_size": 8} if "kseed" in name else {})}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_its_parts(monkeypatch: pytest.MonkeyPatch, name: str):
    run = toy_run(monkeypatch, short(name))
    monkeypatch.setattr("hpcfed.clock.perf_counter", itertools.count().__next__)  # 1 whenever the part changes
    with run.clock.round():
        run.round(0, State())
    spent = dict(zip(PARTS, run.clock.last, strict=True))
    assert (spent.pop("directions") > 0) == (not run.recipe.algorithm.traits.dense)  # first-order methods draw none
    assert min(spent.values()) > 0


@pytest.mark.parametrize("name", METHODS)
def test_a_method_leaves_an_orbit_or_its_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str):
    run = recorded(toy_run(monkeypatch, {"algorithm": {"name": name}}), tmp_path)
    dense = run.recipe.algorithm.traits.dense
    trail = run.open_trail(run.record.folder)  # type: ignore[attr-defined]
    trail.close()
    run.record.close()
    assert type(trail) is (WeightsTrail if dense else JournalTrail) and trail.rounds == 0
    assert (tmp_path / "weights.safetensors").exists() == dense and (tmp_path / "journal").exists() != dense
    assert (run.probe_mode is None) == dense and run.take_notes() == []


@pytest.mark.parametrize("name", BITS)
def test_bits_of_a_client_and_round(monkeypatch: pytest.MonkeyPatch, name: str):
    assert toy_run(monkeypatch, {"algorithm": {"name": name}}).bits == BITS[name]


@pytest.mark.parametrize("name", ["feedsign", "fedkseed", "fedsgd", "fedavg"])
@pytest.mark.parametrize("rounds", [0, 4])
def test_another_row_catches_up_with_what_row_0_has_on_disk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, rounds: int
):
    first, other, air = toy_run(monkeypatch, short(name)), toy_run(monkeypatch, short(name)), list[bytes]()
    first, state = recorded(first, tmp_path), State()
    with first.record:
        first.record.open(first.open_trail, first.data, {}, lambda: None, ["test"])
        for t in range(rounds):
            first.round(t, state)
        lagging, dense = State(), first.recipe.algorithm.traits.dense
        again = first if dense else toy_run(monkeypatch, short(name))  # weights of a dense run are read from its file
        again.record, again.transport, other.transport = first.record, Heard(air), Heard(air, 1)
        again.catch_up(rounds, State())
        other.catch_up(rounds, lagging)
    first.record.close()
    assert not air and other.problem.weights.fingerprint() == first.problem.weights.fingerprint()
    assert again.problem.weights.fingerprint() == first.problem.weights.fingerprint()
    if not dense:
        assert lagging.last == state.last == (read_journal(tmp_path / "journal")[1][-1] if rounds else None)
    moved = first.problem.weights.fingerprint() != first.header.base_fingerprint
    assert moved == (rounds > 0) and all(torch.isfinite(p).all() for p in other.problem.weights.params.values())
