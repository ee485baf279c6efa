"""Votes as vectors, without a rank: what encoding and checking promise, against counting by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hpcfed.errors import ConfigError
from hpcfed.messages import Ballots
from hpcfed.transport import agree, check_same
from hpcfed.transport.base import _row_names, check_sum, count_bits, encode_bits, encode_sum
from hpcfed.transport.solo import SoloTransport


@st.composite
def elections(draw: st.DrawFn) -> tuple[np.ndarray, list[int]]:
    """Votes int8 [voters, q] and how many of the voters each row hosts, some none."""
    hosted = draw(st.lists(st.integers(0, 60), min_size=1, max_size=6).filter(lambda sizes: sum(sizes) > 0))
    shape = (sum(hosted), draw(st.integers(1, 9)))
    return draw(hnp.arrays(np.int8, shape, elements=st.integers(-1, 1), fill=st.just(1))), hosted


@given(elections())
def test_both_forms_count_every_vote_once(election: tuple[np.ndarray, list[int]]) -> None:
    votes, hosted = election
    voters, rows, q = len(votes), len(hosted), votes.shape[1]
    shares = np.split(votes, np.cumsum(hosted)[:-1])
    vectors = [encode_sum(share, row == 0, max(voters, rows)) for row, share in enumerate(shares)]
    assert {v.dtype for v in vectors} == {np.dtype(np.int8 if voters <= 127 else np.int32)}
    counted = check_sum(np.sum(vectors, axis=0, dtype=vectors[0].dtype), voters, rows)
    bits = count_bits(np.array([encode_bits(s, r == 0, max(hosted)) for r, s in enumerate(shares)]), hosted, q)
    for found in (counted, bits):
        assert not isinstance(found, str)
        assert (
            found[0].tolist() == votes.sum(0, dtype=int).tolist() and found[1].tolist() == (votes != 0).sum(0).tolist()
        )
        assert found[2] == 1 and found[0].dtype == found[1].dtype == np.int32


@pytest.mark.parametrize(("voters", "lane"), [(1, np.int8), (127, np.int8), (128, np.int32), (10000, np.int32)])
def test_the_lane_holds_an_unanimous_vote(voters: int, lane: type) -> None:
    vector = encode_sum(np.full((voters, 1), -1, np.int8), False, voters)
    assert vector.dtype == lane and vector.tolist() == [-voters, voters, 0]


@pytest.mark.parametrize(
    ("vector", "wrong"),
    [
        ([0, 104, 0, 5, 0], "direction 1: 5 votes that sum to 104 "),  # one voter of five said 100
        ([6, 0, 6, 0, 0], "direction 0: 6 votes that sum to 6 "),  # six votes of five voters
        ([0, -2, 4, 3, 0], "direction 1: 3 votes that sum to -2 "),  # three votes cannot sum to an even number
        ([1, 1, -1, 1, 0], "direction 0: -1 votes"),
        ([1, 1, 1, 1, 3], "3 of 2 rows ask to stop"),
        ([1, 1, 1, 1, -1], "-1 of 2 rows ask to stop"),
    ],
)
def test_impossible_sums_are_named(vector: list[int], wrong: str) -> None:
    found = check_sum(np.array(vector, np.int8), 5, 2)
    assert isinstance(found, str) and found.startswith(wrong) and "stuffed the ballot box" in found


@given(st.integers(1, 5), st.binary(min_size=40, max_size=40))
def test_whatever_a_row_sends_as_bits_its_clients_have_one_vote_each(q: int, noise: bytes) -> None:
    hosted = [3, 7]
    honest = encode_bits(np.ones((3, q), np.int8), False, 7)
    hostile = np.frombuffer(noise, np.uint8)[: len(honest)]
    sums, cast, stops = count_bits(np.array([honest, hostile]), hosted, q)
    assert (abs(sums - 3) <= 7).all() and ((cast >= 3) & (cast <= 10)).all() and stops in (0, 1)
    assert ((sums - cast) % 2 == 0).all()


def test_alone_nothing_is_sent() -> None:
    alone = SoloTransport()
    tally = alone.tally(Ballots([4, 7], np.array([[1, 0], [1, -1]], np.int8)), 2, [2], stop=True)
    assert tally.sums.tolist() == [2, -1] and tally.cast.tolist() == [2, 1]
    assert (tally.stop, tally.payload_bytes, tally.collectives) == (1, 0, 0)
    agree(alone, None)
    check_same(alone, "the recipe", "x")
    with pytest.raises(ConfigError, match=r"^no data$"):
        agree(alone, "no data")
    with pytest.raises(SystemExit):
        alone.abort(3)


@pytest.mark.parametrize(("votes", "hosted"), [((1, 1), [2]), ((3, 1), [2])])
def test_a_row_that_sends_another_number_of_ballots_is_our_own_fault(votes: tuple[int, int], hosted: list[int]) -> None:
    with pytest.raises(AssertionError):
        SoloTransport().tally(Ballots(range(votes[0]), np.ones(votes, np.int8)), 2, hosted)


def test_rows_are_named_in_runs() -> None:
    assert [_row_names(rows) for rows in ([3], [0, 1, 2, 5], [1, 3])] == ["row 3", "rows 0-2, 5", "rows 1, 3"]
