"""A transport alone, and the names of rows; what takes several rows is in tests/ranks and tests/mpi."""

from __future__ import annotations

import numpy as np
import pytest

from hpcfed.errors import ConfigError, HpcfedError
from hpcfed.messages import Ballots
from hpcfed.transport.base import _row_names, agree, check_same, together
from hpcfed.transport.solo import SoloTransport


def test_one_row_agrees_with_itself() -> None:
    alone = SoloTransport()
    agree(alone, None)
    check_same(alone, "the recipe", "x")
    with pytest.raises(ConfigError, match=r"^no data$"):
        agree(alone, "no data")


@pytest.mark.parametrize(("votes", "hosted"), [((1, 1), [2]), ((3, 1), [2])])
def test_a_row_that_sends_another_number_of_ballots_is_our_own_fault(votes: tuple[int, int], hosted: list[int]) -> None:
    with pytest.raises(AssertionError):
        SoloTransport().tally(Ballots(range(votes[0]), np.ones(votes, np.int8)), 2, hosted)


@pytest.mark.parametrize("values", [np.ones((2, 1)), np.ones(2, np.float32), np.ones((3, 1), np.float32)])
def test_reports_of_another_shape_or_dtype_are_our_own_fault(values: np.ndarray) -> None:
    with pytest.raises(AssertionError):
        SoloTransport().collect(values, np.ones(2, np.int64), [2])


def test_a_sum_in_place_takes_what_it_can_write_in_one_piece() -> None:
    whole = np.arange(6)
    assert SoloTransport().sum_in_place(whole) == 0 and whole.tolist() == [0, 1, 2, 3, 4, 5]
    frozen = whole.copy()
    frozen.flags.writeable = False
    for vector in (whole[::2], frozen, whole.reshape(2, 3), whole.astype(np.float32)):
        with pytest.raises(AssertionError):
            SoloTransport().sum_in_place(vector)


def test_rows_are_named_in_runs() -> None:
    assert [_row_names(rows) for rows in ([3], [0, 1, 2, 5], [1, 3])] == ["row 3", "rows 0-2, 5", "rows 1, 3"]


def test_together_says_what_went_wrong():
    assert together(SoloTransport(), lambda: 7) == 7

    def fails() -> None:
        raise HpcfedError("a reason")

    with pytest.raises(ConfigError, match="a reason"):
        together(SoloTransport(), fails)
