"""Where a round's time goes: every moment is somebody's, and who waits is told by durations alone."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hpcfed import clock as clocks
from hpcfed.clock import COLLECTIVE, DIRECTIONS, FORWARD, PARTS, SHARES, UPDATE, Clock, mean_shares, shares


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Time that the test moves on by hand."""
    now = [0.0]
    monkeypatch.setattr(clocks, "perf_counter", lambda: now[0])
    return now


def test_time_inside_a_part_is_not_its_surroundings(ticks: list[float]):
    clock = Clock()
    ticks[0] += 7  # before the round: nobody's
    with clock.round():
        ticks[0] += 1
        before = clock.to(DIRECTIONS)
        ticks[0] += 2
        clock.to(before)
        ticks[0] += 4
        with clock.during(COLLECTIVE):
            ticks[0] += 8
        clock.to(UPDATE)
        ticks[0] += 16
    assert before == FORWARD and clock.last == [5, 2, 8, 16] and clock.seconds == 31
    ticks[0] += 100
    with clock.round():
        ticks[0] += 1
    assert clock.last == [1, 0, 0, 0]
    assert clock.take().tolist() == [[5, 2, 8, 16], [1, 0, 0, 0]] and len(clock.take()) == 0


def test_a_round_that_fails_is_not_counted(ticks: list[float]):
    clock = Clock()
    with pytest.raises(RuntimeError), clock.round(), clock.during(COLLECTIVE):
        ticks[0] += 3
        raise RuntimeError
    with clock.round():
        ticks[0] += 1
    assert clock.take().tolist() == [[1, 0, 0, 0]]


def test_the_parts_of_real_time_add_up():
    clock = Clock()
    began = time.perf_counter()
    with clock.round():
        for part in range(len(PARTS)):
            with clock.during(part):
                sum(range(1000))
    whole = time.perf_counter() - began
    assert all(spent > 0 for spent in clock.last) and clock.seconds <= whole


def test_the_last_row_waits_for_nobody():
    """Two rounds of two rows: row 1 is late in the first, row 0 in the second."""
    spent = np.array([[[1, 1, 9, 1], [8, 1, 2, 1]], [[8, 1, 2, 1], [1, 1, 9, 1]]], float)
    assert dict(zip(SHARES, shares(spent)[0].tolist(), strict=True)) == {
        "forward": 9, "directions": 2, "vote": 4, "update": 2, "waiting": 7,
    }  # fmt: skip
    assert shares(spent)[1].tolist() == shares(spent)[0].tolist()


@given(arrays.arrays(np.float64, (3, 4, len(PARTS)), elements=st.floats(0, 1e6)))
def test_shares_are_not_negative_and_add_up_to_the_rounds(spent: np.ndarray):
    found = shares(spent)
    assert (found >= 0).all()
    np.testing.assert_allclose(found.sum(1), spent.sum((1, 2)), rtol=1e-9)
    assert (found[:, SHARES.index("vote")] == found[0, SHARES.index("vote")]).all()
    alone = shares(spent[:1])
    assert (alone[:, SHARES.index("waiting")] == 0).all()


def test_the_mean_weighs_lines_by_their_rounds():
    def line(rounds: int, each: float) -> dict[str, Any]:
        return {"t": rounds, "timed": rounds, "time": dict.fromkeys(SHARES, each)}

    other: list[dict[str, Any]] = [{"t": 1, "time": dict.fromkeys(PARTS, 9.0)}, {"t": 1, "split": "test"}]
    assert mean_shares(other) is None
    assert mean_shares([line(3, 1.0), *other, line(1, 5.0)]) == dict.fromkeys(SHARES, 2.0)
