"""One row: every collective gives back what it was given, and nothing counts as sent."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hpcfed.messages import Ballots
from hpcfed.transport.solo import SoloTransport

VOTES = hnp.arrays(np.int8, st.tuples(st.integers(1, 200), st.integers(1, 9)), elements=st.integers(-1, 1))
BITS = hnp.arrays(np.uint32, st.tuples(st.integers(1, 9), st.integers(1, 9)), fill=st.nothing())


def test_one_row_is_the_only_one() -> None:
    alone = SoloTransport()
    assert (alone.name, alone.rank, alone.rows, alone.row.index, alone.row.shards) == ("alone", 0, 1, 0, 1)
    alone.barrier()
    alone.close()
    alone.close()
    for code in (0, 3):
        with pytest.raises(SystemExit) as ended:
            alone.abort(code)
        assert ended.value.code == code


@given(st.binary(), hnp.arrays(st.sampled_from([np.int8, np.int32, np.int64]), st.integers(0, 9)))
def test_bytes_and_sums_are_what_they_were(data: bytes, vector: np.ndarray) -> None:
    alone, before = SoloTransport(), vector.tolist()
    assert alone.all_gather(data) == alone.everyone(data) == [data] and alone.broadcast(data) == data
    assert alone.sum_in_place(vector) == 0 and vector.tolist() == before


@given(VOTES, st.sampled_from(["sum", "bits"]), st.booleans())
def test_a_tally_is_the_sum_of_the_votes(votes: np.ndarray, form: str, stop: bool) -> None:
    n = len(votes)
    tally = SoloTransport().tally(Ballots(range(n), votes), n, [n], form, stop)  # type: ignore[arg-type]
    assert (
        tally.sums.tolist() == votes.sum(0, dtype=int).tolist() and tally.cast.tolist() == (votes != 0).sum(0).tolist()
    )
    assert (tally.voters, tally.stop, tally.payload_bytes, tally.collectives) == (n, stop, 0, 0)


@given(VOTES, st.booleans())
def test_a_private_tally_is_decided_here_and_says_no_more(votes: np.ndarray, stop: bool) -> None:
    n, q = votes.shape
    signs, seen = np.resize(np.array([1, -1], np.int8), q), list[list[int]]()

    def decide(sums: np.ndarray) -> np.ndarray:
        seen.append(sums.tolist())
        return signs

    tally = SoloTransport().private_tally(Ballots(range(n), votes), n, [n], decide, stop)
    assert seen == [votes.sum(0, dtype=int).tolist()]
    assert tally.sums.tolist() == signs.tolist() and tally.cast.tolist() == [1] * q
    assert (tally.stop, tally.payload_bytes, tally.collectives) == (stop, 0, 0)


@given(BITS, st.booleans())
def test_floats_are_collected_bit_for_bit(bits: np.ndarray, stop: bool) -> None:
    sizes = np.arange(len(bits)) + 10
    reports = SoloTransport().collect(bits.view(np.float32), sizes, [len(bits)], stop)
    assert reports.values.view(np.uint32).tolist() == bits.tolist() and reports.sizes is sizes
    assert (reports.stop, reports.payload_bytes, reports.collectives) == (stop, 0, 0)
