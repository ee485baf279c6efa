"""A row of one rank tells itself what it knows; in a row of several, one that fails takes the others with it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hpcfed.errors import ConfigError, DataError, HpcfedError
from hpcfed.transport.row import Row


def test_a_row_knows_its_place() -> None:
    row = Row(3, "cuda")
    assert (row.index, row.device, row.shard, row.shards, row.beside) == (3, "cuda", 0, 1, 1)
    assert (Row().index, Row().device) == (0, "cpu")


@given(st.binary(), st.booleans(), hnp.arrays(st.sampled_from([np.int8, np.uint64]), st.integers(0, 9)))
def test_alone_everything_is_what_it_was(data: bytes, flag: bool, vector: np.ndarray) -> None:
    row, before = Row(), vector.copy()
    row.share(vector)
    assert row.gather(data) == [data] and row.any(flag) is flag and vector.tolist() == before.tolist()
    assert row.together(lambda: vector) is vector
    row.close()


def test_alone_an_error_is_its_own() -> None:
    mistake = DataError("train.csv, row 3: ...")

    def fails() -> None:
        raise mistake

    with pytest.raises(DataError) as caught:
        Row().together(fails)
    assert caught.value is mistake
    with pytest.raises(ZeroDivisionError):  # not ours to explain
        Row().together(lambda: 1 // 0)
    with pytest.raises(ValueError, match="through"), Row().peers():
        raise ValueError("passes through")


class Two(Row):
    """Two shards, of which the other says what it says."""

    shards = 2

    def __init__(self, other: bytes) -> None:
        super().__init__()
        self.other = other

    def gather(self, data: bytes) -> list[bytes]:
        return [data, self.other]


def test_a_shard_that_fails_ends_the_work_of_all() -> None:
    def fails() -> None:
        raise HpcfedError("mine")

    assert Two(b"").together(lambda: 7) == 7
    with pytest.raises(ConfigError, match=r"^no such file$"):
        Two(b"no such file").together(lambda: 7)
    with pytest.raises(HpcfedError, match=r"^mine$"):
        Two(b"theirs").together(fails)
