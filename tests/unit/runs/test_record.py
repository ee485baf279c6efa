"""Records: on other ranks nothing happens; on rank 0 every line is on disk before a callback sees it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcfed.errors import OrbitError
from hpcfed.orbit import read_journal
from hpcfed.runs.folder import RunFolder
from hpcfed.runs.record import FolderRecord, Past, Record
from hpcfed.train.trail import JournalTrail
from tests.support.folders import ENV, RECIPE, contents
from tests.support.orbits import decisions_for, make
from tests.support.runs import made_up_summary, scalars

HEADER = make()
ROUND = {"loss": 0.5, "agreement": 0.75, "wire_payload_bytes": 7, "seconds": 2.0}
SCORE = {"metric": "accuracy", "value": 0.5, "loss": 0.25, "examples": 4}


def entered(path: Path, resume: bool = False, **more: Any) -> FolderRecord:
    """A record whose trail is open: the journal of a FeedSign run."""
    record = FolderRecord(RunFolder.create(path, RECIPE, ENV, resume=resume), quiet=True, **more)
    record.past = record.open(lambda folder: JournalTrail(folder, HEADER), "digest", {}, lambda: None, ["test"])
    return record


def on_disk(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def test_a_record_of_another_rank_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)

    def never(*_: object) -> Any:
        pytest.fail("called")

    with Record() as record:
        assert record.open(never, "digest", {}, never, ["test"]) is None and record.decisions() is None
        record.begin(10, 0, tensorboard=True)
        record.append(0, b"\1")
        record.note("hello")
        record.round({"t": 1, **ROUND}, due=True)
        record.score({"t": 1, "split": "test", **SCORE})
        record.log({"t": 1})
        assert record.seal(1, "f" * 32, ended=True) == {} and record.records() == [] and record.notes == ()
        record.summary(made_up_summary())
    record.close()
    assert not list(tmp_path.iterdir())


def test_callbacks_get_the_lines_that_are_written(tmp_path: Path):
    rounds, scores = list[dict[str, Any]](), list[dict[str, Any]]()

    def seen(into: list[dict[str, Any]]) -> Any:
        def call(line: dict[str, Any]) -> None:
            assert on_disk(tmp_path)[-1] == line  # it is there already
            into.append(dict(line))
            line.clear()  # a user may do so: it is the user's own

        return call

    with entered(tmp_path, on_round=seen(rounds), on_score=seen(scores)) as record:
        record.begin(2, 0, False)
        record.score({"t": 0, "split": "test", **SCORE})
        for t in (1, 2):
            record.round({"t": t, **ROUND}, due=True)
        record.log({"t": 2, "timed": 2})
        record.score({"t": 2, "split": "test", **SCORE})
        assert record.records() == on_disk(tmp_path)
    record.close()
    assert [line["t"] for line in rounds] == [1, 2] and [line["t"] for line in scores] == [0, 2]
    assert [line for line in on_disk(tmp_path) if "timed" not in line] == [scores[0], *rounds, scores[1]]


def test_a_round_that_is_not_due_is_seen_and_not_written(tmp_path: Path):
    seen = list[int]()
    with entered(tmp_path, on_round=lambda line: seen.append(line["t"])) as record:
        record.begin(4, 0, False)
        for t in (1, 2, 3, 4):
            record.round({"t": t, **ROUND}, due=t % 2 == 0)
    record.close()
    assert seen == [1, 2, 3, 4] and [line["t"] for line in on_disk(tmp_path)] == [2, 4]


def test_what_a_callback_raises_comes_through_and_the_folder_is_free_again(tmp_path: Path):
    def stop(line: dict[str, Any]) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), entered(tmp_path, on_round=stop) as record:
        record.begin(2, 0, False)
        record.append(0, b"\1")
        record.round({"t": 1, **ROUND}, due=True)
    record.close()
    assert [line["t"] for line in on_disk(tmp_path)] == [1]
    again = entered(tmp_path, resume=True)
    again.close()
    assert again.past.rounds == 1 and again.decisions() == b"\1"


def test_decisions_are_on_disk_and_come_back(tmp_path: Path):
    decisions = decisions_for(HEADER, 5)
    with entered(tmp_path) as record:
        assert record.past == Past() and record.decisions() == b""
        for t, decision in enumerate(decisions):
            record.append(t, decision)
            assert read_journal(tmp_path / "journal")[1] == decisions[: t + 1]
        assert record.seal(5, "f" * 32, ended=False) == {"orbit_bytes": (tmp_path / "journal").stat().st_size}
    record.close()
    assert not (tmp_path / "orbit.safetensors").exists()
    with entered(tmp_path, resume=True) as record:
        assert record.decisions() == b"".join(decisions) and record.notes[-1] == "resumed after round 5"
        assert record.seal(5, "f" * 32, ended=True) == {"orbit_bytes": (tmp_path / "orbit.safetensors").stat().st_size}
        record.summary(made_up_summary())
    record.close()
    assert "lock" not in contents(tmp_path)


def test_what_earlier_rounds_left(tmp_path: Path):
    """Of five rounds on the trail, four are logged; a score of one round is torn; what came later is dropped."""
    with entered(tmp_path) as record:
        record.begin(9, 0, False)
        for t, decision in enumerate(decisions_for(HEADER, 5)):
            record.append(t, decision)
        record.score({"t": 0, "split": "test", **SCORE})
        record.round({"t": 2, **ROUND, "pairs": 0.25}, due=True)
        record.round({"t": 4, **ROUND, "seconds": 8.0, "wire_payload_bytes": 40}, due=True)
        record.score({"t": 4, "split": "other", **SCORE})
        record.round({"t": 6, **ROUND, "seconds": 99.0}, due=True)
    record.close()
    again = entered(tmp_path, resume=True)
    again.close()
    past = again.past
    assert (past.rounds, past.restarts, past.seconds, past.payload_bytes) == (5, 1, 10.0, 50)  # like those before
    assert past.scores == {0: {"test": SCORE}}
    assert past.pairs[0] == 0.25 and past.pairs[1] != past.pairs[1] and len(past.pairs) == 2
    assert [line["t"] for line in on_disk(tmp_path)] == [0, 2, 4, 4]


def test_a_run_does_not_go_on_with_other_data(tmp_path: Path):
    entered(tmp_path).close()
    before = contents(tmp_path)
    record = FolderRecord(RunFolder.create(tmp_path, RECIPE, ENV, resume=True), quiet=True)
    with pytest.raises(OrbitError, match=r"changed since the run began \(digest -> other\)"):
        record.open(lambda folder: JournalTrail(folder, HEADER), "other", {}, lambda: None, ["test"])
    record.close()
    assert {name: raw for name, raw in contents(tmp_path).items() if name != "env.json"} == {
        name: raw for name, raw in before.items() if name not in ("env.json", "lock")
    }
    assert json.loads(before["partition.json"]) == {
        "digest": "digest",
        "read": {},
        "digests": {},
    }  # and no more where nobody may know


def test_tensorboard_sees_what_is_written(tmp_path: Path):
    with entered(tmp_path) as record:
        record.begin(4, 0, tensorboard=True)
        for t in (1, 2, 3, 4):
            record.round({"t": t, **ROUND, "loss": t / 2}, due=t % 2 == 0)
        record.score({"t": 4, "split": "test", **SCORE})
    record.close()
    assert scalars(tmp_path / "tensorboard") == {
        "loss": [(2, 1.0), (4, 2.0)],
        "agreement": [(2, 0.75), (4, 0.75)],
        "test/accuracy": [(4, 0.5)],
        "test/loss": [(4, 0.25)],
    }


FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(
    st.builds(
        Past,
        st.integers(0, 10**9),
        st.integers(0, 99),
        FINITE,
        st.integers(0, 2**60),
        st.dictionaries(
            st.integers(0, 10**9), st.dictionaries(st.text(), st.fixed_dictionaries({"value": FINITE, "loss": FINITE}))
        ),
        st.lists(FINITE | st.just(math.nan)),  # of private rounds
    )
)
def test_the_other_rows_learn_the_past_as_it_is(past: Past):
    assert repr(Past.from_json(past.to_json())) == repr(past)  # NaN and all
