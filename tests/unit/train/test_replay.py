"""An orbit rebuilds the live weights after every round, in every dtype, rounding, distribution and schedule."""

from __future__ import annotations

import itertools

import pytest

from hpcfed.errors import OrbitError
from hpcfed.orbit import Journal, load, read_journal, seal
from hpcfed.runs.record import Record
from hpcfed.train.replay import check_base, replay_into
from hpcfed.train.round import State
from tests.support.toy import toy_run

CASES = [
    (dtype, rounding, distribution, schedule)
    for dtype, rounding in itertools.product(["float32", "bfloat16", "float16"], ["stochastic", "nearest"])
    for distribution, schedule in [("gaussian", "cosine"), ("rademacher", "linear"), ("gaussian", "constant")]
]


class Kept(Record):
    """A record without a run folder."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal

    def append(self, t: int, decision: bytes) -> None:
        self.journal.append(t, decision)


@pytest.mark.parametrize(("dtype", "rounding", "distribution", "schedule"), CASES)
def test_replay_to_any_round(monkeypatch, tmp_path, dtype: str, rounding: str, distribution: str, schedule: str):
    settings = {
        "model": {"dtype": dtype},
        "algorithm": {
            "rounding": rounding,
            "distribution": distribution,
            "schedule": schedule,
            "warmup": 3,
            "final": 0.1,
            "directions": 1 if schedule == "constant" else 3,
            "lr": 1e-3,
        },
    }
    run = toy_run(monkeypatch, settings)
    live = [run.problem.weights.fingerprint()]
    with Journal.create(tmp_path / "journal", run.header) as journal:
        run.record = Kept(journal)
        for t in range(12):
            run.round(t, State())
            live.append(run.problem.weights.fingerprint())
    assert len(set(live)) > 10 or (dtype, rounding) == ("bfloat16", "nearest")  # there, moves round away
    header, decisions, _ = read_journal(tmp_path / "journal")
    for t in (0, 1, 5, 12):
        fresh = toy_run(monkeypatch, settings).problem.weights
        check_base(header, fresh, dtype)
        replay_into(header, decisions[:t], fresh)
        assert fresh.fingerprint() == live[t], t
    seal(tmp_path / "orbit", header, decisions, live[-1])
    assert load(tmp_path / "orbit").decisions == decisions


def test_another_base_is_refused(monkeypatch):
    run = toy_run(monkeypatch)
    check_base(run.header, run.problem.weights, "float32")
    with pytest.raises(OrbitError, match="made with float32 weights, this model is loaded in bfloat16"):
        check_base(run.header, run.problem.weights, "bfloat16")
    part = toy_run(monkeypatch, {"algorithm": {"train_only": ["*.bias"]}}).problem.weights
    with pytest.raises(OrbitError, match="another parameter layout"):
        check_base(run.header, part, "float32")
    run.round(0, State())
    with pytest.raises(OrbitError, match="starts from other weights"):
        check_base(run.header, run.problem.weights, "float32")
