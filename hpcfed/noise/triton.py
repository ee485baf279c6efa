"""The engine on a CUDA device: what engine.py does for CPU tensors, with the same bits, by triton_kernels.py.

Calls only queue work on the current stream of the tensor's device, and nothing here waits for it but fingerprint().
Pieces whose runs are equally far apart (a whole parameter, a slice along either dimension) are described by two
numbers; other lists of runs are copied to the device, by perturb() and fingerprint() at each call. move_() takes all
parameters in a launch a dtype: where they are is a table on the device, kept for as long as the same ones come.
Seeds are read there too, so that a captured graph of perturb() draws another direction when its seed's tensor changes.

Tests run the kernels in Triton's interpreter on CPU tensors (TRITON_INTERPRET=1 before Triton is imported).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from . import triton_kernels as kernels
from .layout import Piece
from .spec import MASK, ROUNDING_STREAM, fingerprint_key, normal_table

GROUPS = 32  # of 128 elements a program: with 4 warps a thread holds 4 Philox blocks, 32 weights
TILE_OF_FINGERPRINT = 2048

_KIND = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Runs(NamedTuple):
    """A piece as kernels take it: `place` in the order of their arguments, and the number of programs."""

    place: tuple[Any, ...]  # starts (not listed: any tensor, never read), first, stride, length, tiles
    programs: int
    listed: bool
    aligned: bool


def _runs(piece: Piece, device: torch.device, tile: int, starts: Tensor | None = None, stride: int = 1) -> Runs:
    """starts: the runs' first elements in units of `stride`, from piece.starts[0] on; None: those of the piece.

    A tile starts at a multiple of its size, so a run may need one more than its length says.
    """
    first, length, n = int(piece.starts[0]), piece.length, len(piece.starts)
    if starts is None and n > 1:
        gaps = np.diff(piece.starts)
        stride = int(gaps[0])
        if (gaps != stride).any():
            starts, first, stride = _uploaded(piece.starts, device), 0, 1
    alone = n == 1 and starts is None
    ahead = first % tile if alone or stride % tile == 0 else tile - 1
    tiles = -(-(ahead + length) // tile)
    aligned = first % 16 == 0 and length % 16 == 0 and (alone or stride % 16 == 0)
    place = (_indices(device) if starts is None else starts, first, stride, length, tiles)
    return Runs(place, (n if starts is None else len(starts)) * tiles, starts is not None, aligned)


def _uploaded(a: np.ndarray, device: torch.device) -> Tensor:
    """A copy on the device; on the way there it is in pinned memory, so that nobody waits."""
    t = torch.from_numpy(a.copy())
    if device.type != "cuda":
        return t
    assert not torch.cuda.is_current_stream_capturing(), "a replayed graph would read memory that is gone by then"
    return t.pin_memory().to(device, non_blocking=True)


@cache
def _table(device: torch.device) -> Tensor:
    return torch.from_numpy(normal_table().view(np.int32)).to(device)


@cache
def _indices(device: torch.device) -> Tensor:
    return torch.arange(GROUPS * 16, dtype=torch.int16, device=device)


@lru_cache(64)
def _seed(seed: int, device: torch.device) -> Tensor:
    return _uploaded(np.array([seed & MASK], np.uint64).view(np.int64), device)


@lru_cache(4)
def _steps(seeds: bytes, coefficients: bytes, last: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """What kernels.move takes of the steps of an update."""
    every = np.append(np.frombuffer(seeds, np.uint64), np.uint64(last))
    x = every ^ np.uint64(ROUNDING_STREAM)  # spec.mix64, of many
    x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    pairs = np.stack([every, x ^ x >> np.uint64(31)], axis=1).view(np.int64)
    return _uploaded(pairs, device), _uploaded(np.frombuffer(coefficients, np.float32), device)


def _bits(t: Tensor) -> Tensor:
    """The same memory as signed integers."""
    return t.view(-1).view(_BITS[t.element_size()])


def _fits(tensor: Tensor, n: int) -> None:
    assert tensor.is_contiguous(), "the engine takes contiguous tensors"
    assert tensor.numel() == n, f"a piece of {n} elements for a tensor of {tensor.numel()}"


def fill_(out: Tensor, seed: int, piece: Piece, distribution: str) -> None:
    """As engine.fill_, on out's device."""
    out.zero_()
    perturb(out, out, None, seed, 1.0, piece, distribution)  # 0 + 1 z is z: no z is 0


def perturb(
    w: Tensor, plus: Tensor, minus: Tensor | None, seed: int | Tensor, mu: float, piece: Piece, distribution: str
) -> None:
    """As engine.perturb, on w's device; an int is copied to it when it is new."""
    _fits(w, piece.numel)
    if w.numel():
        _perturb(w, plus, minus, seed, mu, piece.key, distribution, _runs(piece, w.device, GROUPS * 128))


def perturb_rows(
    w: Tensor,
    rows: Tensor,
    plus: Tensor,
    minus: Tensor | None,
    seed: int | Tensor,
    mu: float,
    piece: Piece,
    distribution: str,
) -> None:
    """As engine.perturb_rows, on w's device; the rows' numbers stay there."""
    if not rows.numel():
        return
    some, width = w[rows], w[0].numel()
    runs = _runs(Piece(piece.key, piece.starts[:1], width), w.device, GROUPS * 128, rows, width)
    _perturb(some, plus, minus, seed, mu, piece.key, distribution, runs)


def _perturb(
    w: Tensor,
    plus: Tensor,
    minus: Tensor | None,
    seed: int | Tensor,
    mu: float,
    key: int,
    distribution: str,
    runs: Runs,
) -> None:
    if not isinstance(seed, Tensor):
        seed = _seed(seed, w.device)
    assert seed.dtype == torch.int64 and seed.numel() == 1 and seed.device == w.device, "a seed is int64 [1], beside w"
    for out in (plus, plus if minus is None else minus):
        _fits(out, w.numel())
        assert out.dtype == w.dtype and out.device == w.device
    with torch.cuda.device_of(w):
        kernels.perturb[(runs.programs,)](
            _bits(w), _bits(plus), _bits(plus if minus is None else minus), *runs.place,
            seed, key, float(np.float32(mu)), _table(w.device), _indices(w.device),
            GAUSSIAN=distribution == "gaussian", KIND=_KIND[w.dtype], G=GROUPS, LISTED=runs.listed,
            ALIGNED=runs.aligned, BOTH=minus is not None, num_warps=4, enable_fp_fusion=False,
        )  # fmt: skip


class Launch(NamedTuple):
    """Parameters that one launch of kernels.move moves: those of one dtype, alike listed and aligned."""

    rows: Tensor  # int64 [parameters, kernels.FIELDS]
    programs: int
    kind: int
    listed: bool
    aligned: bool
    lists: list[Any]  # whose addresses are in `rows`


@lru_cache(4)
def _launches(params: tuple[tuple[int, torch.dtype, Piece], ...], device: torch.device) -> list[Launch]:
    """params: addresses, dtypes and pieces of parameters that are not empty."""
    assert len({address for address, _, _ in params}) == len(params), "a parameter is moved twice in one launch"
    groups: dict[tuple[int, bool, bool], list[tuple[int, int, Runs]]] = {}
    for address, dtype, piece in params:
        runs = _runs(piece, device, GROUPS * 128)
        like = _KIND[dtype], runs.listed, runs.aligned and address % 16 == 0
        groups.setdefault(like, []).append((address, piece.key, runs))
    launches = []
    for like, group in groups.items():
        ends = np.cumsum([runs.programs for _, _, runs in group]).tolist()
        rows = [
            (first, address, key, runs.place[0].data_ptr(), *runs.place[1:])
            for first, (address, key, runs) in zip([0, *ends], group, strict=False)
        ]
        table = np.array([[x & MASK for x in row] for row in rows], np.uint64).view(np.int64)
        launches.append(Launch(_uploaded(table, device), ends[-1], *like, [runs.place[0] for _, _, runs in group]))
    return launches


def move_(
    params: Sequence[tuple[Tensor, Piece]],
    seeds: np.ndarray,
    coefficients: np.ndarray,
    distribution: str,
    rounding: str,
    *,
    once: bool = False,
) -> None:
    """As engine.move_, on the tensors' device."""
    assert seeds.dtype == np.uint64 and coefficients.dtype == np.float32 and len(seeds) == len(coefficients)
    for w, piece in params:
        _fits(w, piece.numel)
        assert w.device == params[0][0].device
    chosen = coefficients != 0 if once else np.ones(len(seeds), bool)  # a NaN is a step
    some = tuple((w.data_ptr(), w.dtype, piece) for w, piece in params if w.numel())
    if not chosen.any() or not some:
        return
    device = params[0][0].device
    steps, scales = _steps(seeds[chosen].tobytes(), coefficients[chosen].tobytes(), int(seeds[-1]), device)
    with torch.cuda.device_of(params[0][0]):
        for launch in _launches(some, device):
            wide = launch.kind == _KIND[torch.float32]  # whose every step is rounded anyway
            kernels.move[(launch.programs,)](
                launch.rows, len(launch.rows), steps, scales, len(scales), _table(device), _indices(device),
                GAUSSIAN=distribution == "gaussian", STOCHASTIC=rounding == "stochastic" and not wide,
                KIND=launch.kind, ONCE=once or wide, G=GROUPS, LISTED=launch.listed, ALIGNED=launch.aligned,
                num_warps=4, enable_fp_fusion=False,
            )  # fmt: skip


def fingerprint(tensor: Tensor, piece: Piece) -> int:
    """As engine.fingerprint; waits for the device."""
    _fits(tensor, piece.numel)
    size = tensor.element_size()
    assert size in _BITS, f"{tensor.dtype} has no fingerprint"
    if not tensor.numel():
        return 0
    key_a, key_b = (fingerprint_key(piece.key, str(tensor.dtype).removeprefix("torch."), lane) for lane in range(2))
    runs = _runs(piece, tensor.device, TILE_OF_FINGERPRINT)
    sums = torch.empty(runs.programs, 2, dtype=torch.int64, device=tensor.device)
    with torch.cuda.device_of(tensor):
        kernels.fingerprint[(runs.programs,)](
            _bits(tensor), sums, *runs.place, key_a, key_b,
            SIZE=size, T=TILE_OF_FINGERPRINT, LISTED=runs.listed, ALIGNED=runs.aligned,
        )  # fmt: skip
    low, high = sums.sum(0).tolist()  # mod 2^64, as int64 wraps
    return (high & MASK) << 64 | low & MASK
