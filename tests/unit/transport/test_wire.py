"""Votes as vectors, without a rank: what encoding and checking promise, against counting by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hpcfed.transport.wire import (
    STUFFED,
    VOTED,
    check_sum,
    count_bits,
    decide_alone,
    encode_bits,
    encode_sum,
)


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


@pytest.mark.parametrize("voters", range(1, 11))
@pytest.mark.parametrize("stuffed", [100, -100])
def test_one_stuffed_ballot_is_found_whatever_the_others_vote(voters: int, stuffed: int) -> None:
    others = itertools.combinations_with_replacement([-1, 0, 1], voters - 1)
    for votes in (np.array([[stuffed, *rest]], np.int8).T for rest in others):
        assert isinstance(check_sum(encode_sum(votes, False, voters), voters, 1), str)


@given(st.data(), st.integers(1, 16), st.integers(1, 4))
def test_several_stuffed_ballots_are_found_even_where_they_wrap(data: st.DataObject, voters: int, rows: int) -> None:
    votes = data.draw(hnp.arrays(np.int8, (voters, 1), elements=st.sampled_from([-100, -1, 0, 1, 100])))
    whole = encode_sum(votes, False, max(voters, rows))
    shares = np.split(votes, sorted(data.draw(st.lists(st.integers(0, voters), min_size=rows - 1, max_size=rows - 1))))
    vectors = [encode_sum(share, False, max(voters, rows)) for share in shares]
    assert np.sum(vectors, axis=0, dtype=whole.dtype).tolist() == whole.tolist()  # one verdict for every launch
    if abs(votes.sum(dtype=int)) > voters:
        assert isinstance(check_sum(whole, voters, rows), str)


def test_ten_stuffed_ballots_of_seventeen_can_pass_as_a_sum_but_not_as_bits() -> None:
    votes = np.array([[100]] * 10 + [[1]] * 7, np.int8)  # 1007 = -17 (mod 256)
    assert check_sum(encode_sum(votes, False, 17), 17, 1) == (-17, 17, 0)
    assert count_bits(encode_bits(votes, False, 17)[None], [17], 1) == (17, 17, 0)


@pytest.mark.parametrize("voters", [127, 128, 300])
@given(data=st.data())
def test_one_stuffed_ballot_among_many_breaks_the_parity(data: st.DataObject, voters: int) -> None:
    votes = data.draw(hnp.arrays(np.int8, (voters, 1), elements=st.integers(-1, 1), fill=st.sampled_from([-1, 0, 1])))
    votes[0] = 100
    assert isinstance(check_sum(encode_sum(votes, False, voters), voters, 1), str)


@given(elections(), st.data())
def test_row_0_says_what_it_decides_and_nothing_else(
    election: tuple[np.ndarray, list[int]], data: st.DataObject
) -> None:
    votes, hosted = election
    voters, rows, q = len(votes), len(hosted), votes.shape[1]
    shares = np.split(votes, np.cumsum(hosted)[:-1])
    received = np.array([encode_sum(share, row < 2, max(voters, rows)) for row, share in enumerate(shares)])
    signs = data.draw(hnp.arrays(np.int8, q, elements=st.sampled_from([-1, 1])))
    seen: list[np.ndarray] = []

    def decide(sums: np.ndarray) -> np.ndarray:
        seen.append(sums)
        return signs

    answer = decide_alone(received, voters, decide)
    assert answer.dtype == received.dtype
    assert answer.tolist() == [*signs, VOTED, min(rows, 2)]  # also if nobody voted: that would tell each one's vote
    assert [(s.dtype, s.tolist()) for s in seen] == [(np.int32, votes.sum(0, dtype=int).tolist())]


def test_row_0_decides_nothing_from_an_impossible_sum() -> None:
    received = np.array([encode_sum(np.array([[1], [v]], np.int8), True, 4) for v in (1, 100)])
    assert decide_alone(received, 4, lambda _: pytest.fail("called")).tolist() == [0, STUFFED, 0]


@pytest.mark.parametrize("signs", [np.array([1.0, -1.0]), np.array([1, 0], np.int8), np.ones(3, np.int8)])
def test_a_decision_that_is_no_sign_is_our_own_fault(signs: np.ndarray) -> None:
    with pytest.raises(AssertionError):
        decide_alone(np.array([[1, 1, 1, 1, 0]], np.int8), 1, lambda _: signs)
