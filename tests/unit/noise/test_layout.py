"""Pieces address the same elements however a parameter is cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hpcfed.noise import fill_
from hpcfed.noise.layout import Piece, Slice, layout_hash
from hpcfed.seeds import name_key

ROWS, WIDTH = 37, 70


def drawn(piece: Piece) -> torch.Tensor:
    out = torch.empty(piece.numel)
    fill_(out, 11, piece, "gaussian")
    return out


WHOLE = Piece.whole("layer.weight", ROWS * WIDTH)
Z = drawn(WHOLE)


@given(st.integers(0, ROWS * WIDTH), st.integers(0, ROWS * WIDTH))
def test_a_part_of_a_whole_parameter(a, b):
    low, high = min(a, b), max(a, b)
    assert torch.equal(drawn(WHOLE.part(low, high)), Z[low:high])


@given(st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=9))
def test_rows_in_any_order(rows):
    assert torch.equal(drawn(WHOLE.rows(np.array(rows), WIDTH)).view(-1, WIDTH), Z.view(ROWS, WIDTH)[rows])


def test_columns_of_a_shard_and_a_part_of_them():
    low, high = 24, 51
    columns = Piece(WHOLE.key, np.arange(ROWS, dtype=np.int64) * WIDTH + low, high - low)
    want = Z.view(ROWS, WIDTH)[:, low:high]
    assert columns.numel == want.numel()
    assert torch.equal(drawn(columns).view(ROWS, -1), want)
    assert torch.equal(drawn(columns.part(3 * (high - low), 9 * (high - low))).view(6, -1), want[3:9])


@pytest.mark.parametrize("shape", [(ROWS, WIDTH), (ROWS * WIDTH,), (ROWS, 7, 10)], ids=str)
@pytest.mark.parametrize("runs", [[(0, 2)], [(1, 4)], [(0, 1), (3, 5)]], ids=str)
def test_a_slice_is_what_index_select_takes(shape, runs):
    for dim in range(len(shape)):
        index = np.concatenate([np.arange(a, b) for a, b in runs])[: shape[dim]]
        index = index[index < shape[dim]]
        found = Slice(shape, dim, index).piece("layer.weight")
        want = Z.view(shape).index_select(dim, torch.from_numpy(index))
        assert found.numel == want.numel()
        assert torch.equal(drawn(found), want.flatten())


def test_the_layout_hash_sees_names_and_shapes_and_no_order():
    shapes = {"a": (2, 3), "b": (4,)}
    assert layout_hash(shapes) == layout_hash(dict(reversed(shapes.items())))
    others = [{"a": (3, 2), "b": (4,)}, {"a": (2, 3), "c": (4,)}, {"a": (2, 3)}, {"a": (2,), "b": (3, 4)}]
    assert len({layout_hash(s) for s in [shapes, *others]}) == 5


def test_names_have_different_keys():
    assert len({name_key(f"layers.{i}.weight") for i in range(1000)}) == 1000
