"""What a run goes on from: decisions in a journal, or weights every so many rounds; of another run they are refused."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hpcfed.errors import OrbitError
from hpcfed.orbit import load, pack_signs, read_journal
from hpcfed.runs.folder import RunFolder
from hpcfed.train.trail import JournalTrail, WeightsTrail
from hpcfed.weights import Weights
from hpcfed.weights.checkpoint import load_weights
from tests.support.orbits import decisions_for, make
from tests.support.toy import toy_run

HEADER = make()


def folder(path: Path, resume: bool = False) -> RunFolder:
    return RunFolder.create(path, "rounds = 1\n", {}, resume=resume)


def test_a_journal_is_gone_on_with_where_it_ends(tmp_path: Path):
    decisions = decisions_for(HEADER, 7)
    with folder(tmp_path) as new:
        trail = JournalTrail(new, HEADER)
        assert (trail.rounds, trail.decisions, trail.notes) == (0, [], [])
        for t in range(4):
            trail.append(t, decisions[t])
        trail.close()
    with folder(tmp_path, resume=True) as again:
        trail = JournalTrail(again, HEADER)
        assert (trail.rounds, trail.decisions) == (4, decisions[:4])
        for t in range(4, 7):
            trail.append(t, decisions[t])
        sizes = trail.seal(7, "f" * 32, ended=True)
    orbit = load(tmp_path / "orbit.safetensors")
    assert (orbit.decisions, orbit.fingerprint) == (decisions, "f" * 32) and orbit.header.to_json() == HEADER.to_json()
    assert sizes == {"orbit_bytes": (tmp_path / "orbit.safetensors").stat().st_size}
    assert read_journal(tmp_path / "journal")[1] == decisions


@pytest.mark.parametrize("mechanism", ["none", "local", "central"])
def test_a_private_run_waits_for_the_disk_every_round(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mechanism: str):
    """A round that a power failure took back would be drawn anew, and told twice."""
    private = mechanism != "none"
    run = toy_run(monkeypatch, privacy={"mechanism": mechanism, **({"epsilon": 2} if private else {})})
    decision, on_disk, fdatasync = pack_signs(np.array([1])), list[int](), os.fdatasync
    monkeypatch.setattr("hpcfed.train.trail.SYNC_SECONDS", 1e9)
    monkeypatch.setattr(os, "fdatasync", lambda fd: (fdatasync(fd), on_disk.append(os.fstat(fd).st_size)))
    with folder(tmp_path) as new:
        trail, sizes = run.open_trail(new), list[int]()
        for t in range(5):
            trail.append(t, decision)
            sizes.append(new.journal.stat().st_size)
        assert on_disk == (sizes if private else [])
        trail.close()


def test_a_torn_journal_is_mended_and_says_so(tmp_path: Path):
    with folder(tmp_path) as new:
        trail = JournalTrail(new, HEADER)
        for t, decision in enumerate(decisions_for(HEADER, 3)):
            trail.append(t, decision)
        trail.close()
        new.journal.write_bytes(new.journal.read_bytes()[:-1])
    with folder(tmp_path, resume=True) as again:
        trail = JournalTrail(again, HEADER)
        trail.close()
    assert trail.rounds == 2 and len(trail.notes) == 1


def test_a_trail_of_another_run_is_refused_and_left_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    run = toy_run(monkeypatch, {"algorithm": {"name": "fedsgd"}})
    for name, header, other in (
        ("journal", HEADER, replace(HEADER, run_seed=8)),
        ("weights.safetensors", run.header, replace(run.header, run_seed=8)),
    ):
        path = tmp_path / name.partition(".")[0]

        def opened(where: RunFolder, header: object, dense: bool = name.startswith("weights")) -> object:
            weights = run.problem.weights
            return WeightsTrail(where, header, weights, 1) if dense else JournalTrail(where, header)  # type: ignore[arg-type]

        with folder(path) as new:
            opened(new, header).close()  # type: ignore[attr-defined]
        before = (path / name).read_bytes()
        with folder(path, resume=True) as again:
            with pytest.raises(OrbitError, match=r"begun with other settings or another base model \(run_seed: "):
                opened(again, other)
        assert (path / name).read_bytes() == before


def fill(weights: Weights, value: float) -> str:
    """Their fingerprint, all being `value`."""
    for p in weights.params.values():
        p.data.fill_(value)
    return weights.fingerprint()


def test_weights_are_saved_at_once_and_every_so_many_rounds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    run = toy_run(monkeypatch, {"algorithm": {"name": "fedsgd"}})
    weights, saved = run.problem.weights, list[int]()
    with folder(tmp_path) as new:
        trail = WeightsTrail(new, run.header, weights, save_every=3)
        assert load_weights(tmp_path / "weights.safetensors", weights)[0] == trail.rounds == 0
        marks = {0: weights.fingerprint()}
        for t in range(8):
            marks[t + 1] = fill(weights, t + 1)
            trail.append(t, b"")
            saved.append(load_weights(tmp_path / "weights.safetensors", weights)[0])
            assert weights.fingerprint() == marks[saved[-1]]
    assert saved == [0, 0, 3, 3, 3, 6, 6, 6]
    fill(weights, 99)
    with folder(tmp_path, resume=True) as again:
        trail = WeightsTrail(again, run.header, weights, save_every=3)
        assert trail.rounds == 6 and trail.decisions == [] and weights.fingerprint() == marks[6]
        end = fill(weights, 8)
        sizes = trail.seal(8, end, ended=True)
    assert sizes == {"weights_bytes": (tmp_path / "weights.safetensors").stat().st_size}
    fill(weights, 99)
    assert load_weights(tmp_path / "weights.safetensors", weights)[0] == 8 and weights.fingerprint() == end
    assert all(torch.equal(p, torch.full_like(p, 8)) for p in weights.params.values())
