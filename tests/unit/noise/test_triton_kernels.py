"""Parameters that the GPU engine moves together: the bits of the specification for each, in a launch a dtype."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from hpcfed.noise import spec
from hpcfed.noise.layout import Piece, Slice
from tests.support.noise import DTYPES, random_weights, tensor_bits, tensor_of
from tests.support.noise_engines import DEVICE, KINDS, examples, same, triton, words64

pytestmark = [
    pytest.mark.skipif(triton is None, reason="no Triton here: pip install triton"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # the interpreter is NumPy, which warns of infinities
]


@st.composite
def held(draw: st.DrawFn) -> Piece:
    """A parameter whole, or a shard's: neighbouring rows, neighbouring columns, columns here and there, none at all."""
    name, rows, width = draw(st.text("abc")), draw(st.integers(1, 4)), draw(st.sampled_from([1, 16, 37, 64]))
    how = draw(st.sampled_from(["whole", "long", "rows", "columns", "uneven", "none"]))
    if how in ("whole", "long"):
        return Piece.whole(name, 5000 if how == "long" else rows * width)
    if how == "rows":
        return Slice((3 * rows, width), 0, np.arange(rows, 2 * rows)).piece(name)
    if how == "columns":
        return Slice((rows, 3 * width), 1, np.arange(width, 2 * width)).piece(name)
    index = [] if how == "none" else sorted(draw(st.sets(st.integers(0, 39), min_size=2, max_size=4)))
    return Slice((rows, 40), 1, np.array(index, np.int64)).piece(name)


UNEVEN = [("bfloat16", Slice((2, 40), 1, np.array(index)).piece("u")) for index in ([3, 4, 17], [0, 8, 39])]


def packed(parts: list[tuple[str, Piece]], gap: int) -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
    """A buffer a dtype with the parts one after another, `gap` elements of 1.5 around each; and the parts, views."""
    buffers, places, at = {}, [], dict.fromkeys(KINDS, gap)
    for kind, piece in parts:
        places.append((kind, at[kind], at[kind] + piece.numel))
        at[kind] += piece.numel + gap
    for kind in KINDS:
        buffers[kind] = torch.full((at[kind],), 1.5, dtype=DTYPES[kind], device=DEVICE)
    return buffers, [buffers[kind][low:high] for kind, low, high in places]


@pytest.mark.long
@examples(30)
@example(UNEVEN, 3, [5], "gaussian", "stochastic", False)
@given(
    st.lists(st.tuples(st.sampled_from(KINDS), held()), min_size=1, max_size=5), st.sampled_from([8, 3]),
    st.lists(words64, min_size=1, max_size=2), st.sampled_from(spec.DISTRIBUTIONS), st.sampled_from(spec.ROUNDINGS),
    st.booleans(),
)  # fmt: skip
def test_each_moves_as_the_spec_says_and_nothing_else_does(parts, gap, seeds, distribution, rounding, once):
    names, c = np.array(seeds, np.uint64), np.array([1e-3, -2.0][: len(seeds)], np.float32)
    before = [random_weights(piece.numel, kind, i) for i, (kind, piece) in enumerate(parts)]
    buffers, views = packed(parts, gap)
    for view, w, (kind, _) in zip(views, before, parts, strict=True):
        view.copy_(tensor_of(w, kind))
    both = [(view, piece) for view, (_, piece) in zip(views, parts, strict=True)]
    triton.move_(both, names, c, distribution, rounding, once=once)
    expected, wanted = packed(parts, gap)
    moved = spec.move_once if once else spec.move
    for view, w, (kind, piece) in zip(wanted, before, parts, strict=True):
        if w.size:
            view.copy_(tensor_of(moved(w, names, c, piece, distribution, rounding, kind), kind))
    for kind, buffer in buffers.items():
        assert same(buffer, tensor_bits(expected[kind].cpu()))


class Counted:
    """A kernel that writes down the programs of each launch."""

    def __init__(self, kernel: Any) -> None:
        self.kernel, self.launches = kernel, []

    def __getitem__(self, grid: tuple[int]) -> Any:
        self.launches.append(grid[0])
        return self.kernel[grid]


def test_a_model_moves_in_a_launch_a_dtype(monkeypatch):
    """Ten layers of two weights and a bias; what the launches read is uploaded once, however often they come."""
    counted = Counted(triton.kernels.move)
    monkeypatch.setattr(triton.kernels, "move", counted)
    parts = [
        (torch.zeros(n, dtype=torch.bfloat16, device=DEVICE), Piece.whole(f"{i}.{n}", n))
        for i in range(10)
        for n in (16, 32, 4112)
    ]
    parts.append((torch.zeros(32, device=DEVICE), Piece.whole("norm", 32)))
    steps = np.array([3], np.uint64), np.array([1e-2], np.float32)
    hits, misses = triton._launches.cache_info()[:2]
    for _ in range(2):
        triton.move_(parts, *steps, "rademacher", "nearest")
    assert counted.launches == [40, 1] * 2
    assert triton._launches.cache_info()[:2] == (hits + 1, misses + 1)
    assert all((w.abs() > 0.01).all() for w, _ in parts)


def test_only_what_starts_at_16_bytes_is_loaded_as_aligned():
    buffer, key = torch.zeros(64, dtype=torch.bfloat16, device=DEVICE), Piece.whole("w", 32)
    for offset, aligned in ((0, True), (8, True), (1, False), (4, False)):
        place = (buffer[offset:].data_ptr(), torch.bfloat16, key)
        assert triton._launches((place,), DEVICE)[0].aligned == aligned
