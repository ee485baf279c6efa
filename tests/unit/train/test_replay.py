"""An orbit rebuilds the live weights after every round, in every dtype, rounding, distribution and schedule."""

from __future__ import annotations

import itertools

import pytest

from hpcfed.errors import OrbitError
from hpcfed.orbit import Journal, load, read_journal, seal
from hpcfed.runs.record import Record
from hpcfed.train.replay import check_base, replay, replay_into
from hpcfed.train.round import State
from hpcfed.train.score import evaluate
from hpcfed.train.start import train
from tests.support.digits import tiny
from tests.support.orbits import make
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


#: What six rounds of the digits were when directions went by names in memory, of transformers 5.23.
OLD = {
    "layout_hash": "1f6c6de85a20d5218038f9707888a9ac",
    "base_fingerprint": "cddd303d1fe089346cc234ed96373522",
    "decisions": [b"\1", b"\0", b"\0", b"\1", b"\0", b"\1"],
    "fingerprint": "f61fade74032a5ab11846c45094ab692",
}


def test_an_orbit_by_names_in_memory_replays(tmp_path):
    header = make(
        run_seed=0, lr=0.002, schedule={"name": "linear", "warmup": 0, "rounds": 6, "final": 0.0}, rounding="nearest",
        dtype="float32", base_model="digits-vit", base_fingerprint=OLD["base_fingerprint"], train_only=[],
        layout_hash=OLD["layout_hash"], kind="image-classification", labels=list("0123456789"),
    )  # fmt: skip
    seal(tmp_path / "orbit", header, OLD["decisions"], OLD["fingerprint"])
    assert replay(tmp_path / "orbit", "digits-vit").fingerprint == OLD["fingerprint"]


def test_a_run_by_names_in_memory_is_gone_on_with(monkeypatch, tmp_path):
    def end(record):
        if record["t"] == 3:
            raise InterruptedError

    with monkeypatch.context() as before, pytest.raises(InterruptedError):
        before.setattr("hpcfed.train.problem.checkpoint_names", lambda model: {})
        train(tiny(), tmp_path, quiet=True, on_round=end)
    ended = train(tiny(), tmp_path, quiet=True, resume=True)
    orbit = load(tmp_path / "orbit.safetensors")
    assert orbit.header.layout_hash == OLD["layout_hash"]
    assert ended.summary["fingerprint"] == OLD["fingerprint"] and orbit.decisions == OLD["decisions"]
    assert {score.value for score in evaluate(tmp_path).values()} == {ended.summary["metric_after"]}
