"""The engines that must give the specification's bits, each with what its tests need; and what hypothesis draws."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st

from hpcfed.noise import engine
from hpcfed.noise.layout import Piece
from tests.support.noise import DTYPES, bits_of, tensor_bits, tensor_of

try:
    from hpcfed.noise import triton
except ImportError:
    assert not os.environ.get("CI"), "CI must run these tests: Triton is missing"
    triton = None

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")  # of Triton
KINDS = list(DTYPES)
UNSIGNED = {
    torch.float32: np.uint32, torch.bfloat16: np.uint16, torch.float16: np.uint16, torch.float64: np.uint64,
    torch.int64: np.uint64, torch.int32: np.uint32, torch.int8: np.uint8, torch.uint8: np.uint8, torch.bool: np.uint8,
}  # fmt: skip
words64 = st.integers(0, 2**64 - 1)
offsets = st.one_of(
    st.integers(0, 5000),
    st.builds(
        lambda near, by: near + by, st.sampled_from([2**31, 2**32, 2**36, 2**40, 2**58]), st.integers(-3000, 3000)
    ),
    st.integers(0, 2**60),
)


@st.composite
def pieces(draw: st.DrawFn) -> Piece:
    """One run of up to three tiles, or many short ones, at any offsets."""
    runs = draw(st.sampled_from([1, 1, 2, 7]))
    length = draw(st.integers(1, 5000 if runs == 1 else 400))
    return Piece(draw(words64), np.array([draw(offsets) for _ in range(runs)], np.int64), length)


@st.composite
def tiled_pieces(draw: st.DrawFn) -> Piece:
    """One run of up to two tiles, or a few short ones: at any offsets, or equally far apart; aligned or not."""
    runs, step = draw(st.sampled_from([1, 1, 2, 3])), draw(st.sampled_from([1, 16]))
    length = step * draw(st.integers(1, (6000 if runs == 1 else 400) // step))
    first = draw(offsets) // step * step
    if draw(st.booleans()):
        starts = [first + i * step * 1111 for i in range(runs)]
    else:
        starts = [first, *(draw(offsets) for _ in range(runs - 1))]
    return Piece(draw(words64), np.array(starts, np.int64), length)


def examples(n: int) -> settings:
    """For Triton: a program takes its interpreter a twentieth of a second, whatever its size."""
    return settings(max_examples=n * 20 if GPU else n, deadline=None, derandomize=not GPU)


@dataclass(frozen=True)
class Engine:
    """An engine that equals noise/spec.py.  most: seeds of a move.  The module is asked for its functions each time."""

    module: Any
    device: torch.device
    pieces: Callable[[], st.SearchStrategy[Piece]]
    most: int

    @property
    def slow(self) -> bool:
        """Each program counts."""
        return self.module is triton

    def examples(self, many: int, few: int) -> settings:
        return examples(few) if self.slow else settings(max_examples=many, deadline=None)

    def here(self, a: np.ndarray, kind: str) -> torch.Tensor:
        """A copy of a spec array on the engine's device."""
        return tensor_of(a, kind).to(self.device)

    def move(
        self, t: torch.Tensor, seeds: np.ndarray, c: Any, piece: Piece, distribution: str, rounding: str, once: bool
    ) -> None:
        self.module.move_([(t, piece)], seeds, np.asarray(c, np.float32), distribution, rounding, once=once)


def same(t: torch.Tensor, expected: np.ndarray) -> bool:
    return bool((tensor_bits(t.cpu()) == bits_of(expected)).all())


each_engine = pytest.mark.parametrize(
    "engine",
    [
        pytest.param(Engine(engine, torch.device("cpu"), pieces, 5), id="cpu"),
        pytest.param(
            Engine(triton, DEVICE, tiled_pieces, 3),
            id="triton",
            marks=[
                pytest.mark.skipif(triton is None, reason="no Triton here: pip install triton"),
                pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # its interpreter is NumPy: infinities
            ],
        ),
    ],
)
