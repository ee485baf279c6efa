"""Which number of which parameter: the address of every trainable element, whatever the sharding.

A `Piece` says which elements of a full, unsharded parameter a local tensor holds. One piece serves the whole
parameter (one run of all elements), a tensor-parallel slice along dim 0 (one run at an offset), a slice along
dim 1 (one run a row) and the rows of an embedding that a batch looks up (one run a row).

Promise: directions, rounding bits and fingerprints are functions of (seed, Piece) alone.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ..seeds import name_key


@dataclass(frozen=True, eq=False)
class Piece:
    """Local element k * length + i is element starts[k] + i of the full parameter.

    key: 64-bit hash of the parameter's name.  starts: int64 [runs].  length: elements a run.
    """

    key: int
    starts: np.ndarray
    length: int

    @staticmethod
    def whole(name: str, numel: int) -> Piece:
        """All elements of a parameter that is not sharded."""
        return Piece(name_key(name), np.zeros(1, np.int64), numel)

    def rows(self, rows: np.ndarray, width: int) -> Piece:
        """Some rows of this (whole) parameter, seen as a matrix of `width` columns; rows: int64 [n]."""
        return Piece(self.key, np.asarray(rows, np.int64) * width + int(self.starts[0]), width)

    def part(self, low: int, high: int) -> Piece:
        """Local elements low to high: within one run, or whole runs."""
        if len(self.starts) == 1:
            return Piece(self.key, self.starts + low, high - low)
        assert low % self.length == high % self.length == 0
        return Piece(self.key, self.starts[low // self.length : high // self.length], self.length)

    @property
    def numel(self) -> int:
        return len(self.starts) * self.length


@dataclass(frozen=True, eq=False)
class Slice:
    """What one shard holds of a parameter: the places `index` along dimension `dim`.

    shape: of the full parameter.  index: int64 [n], ascending; a fused weight's is in several runs.
    """

    shape: tuple[int, ...]
    dim: int
    index: np.ndarray

    def piece(self, name: str) -> Piece:
        """The addresses of the local tensor's elements, in its order."""
        inner, outer = math.prod(self.shape[self.dim + 1 :]), math.prod(self.shape[: self.dim])
        together = len(self.index) > 0 and int(self.index[-1] - self.index[0]) == len(self.index) - 1
        firsts = self.index[:1] if together else self.index  # one place a run otherwise: runs have one length
        starts = np.add.outer(np.arange(outer, dtype=np.int64) * (self.shape[self.dim] * inner), firsts * inner)
        return Piece(name_key(name), starts.reshape(-1), inner * (len(self.index) if together else 1))


def layout_hash(shapes: Mapping[str, Iterable[int]]) -> str:
    """128-bit hex digest of the trainable parameters' names and full shapes, independent of their order."""
    h = hashlib.blake2b(digest_size=16)
    for name in sorted(shapes):
        h.update(f"{name} {' '.join(str(int(n)) for n in shapes[name])}\n".encode())
    return h.hexdigest()
