"""Directions, perturbed weights, moves and fingerprints of torch tensors (noise spec v1).

    fill_(out, seed, piece, distribution)                             out = z
    perturb(w, plus, minus, seed, mu, piece, distribution)            plus, minus = w + mu z, w - mu z, one draw of z
    perturb_rows(w, rows, plus, minus, ...)                           the same for some rows of w
    move_([(w, piece), ...], seeds, coefficients, ...)                w = w - c z for every (seed, c), one sweep
    move_(..., once=True)                                             the same, rounded to w's dtype only at the end
    fingerprint(tensor, piece)                                        128 bits, summable over disjoint pieces

Tensors are contiguous and hold the elements of `piece` in order, in any shape; weights are float32, bfloat16 or
float16. CPU tensors are computed here, by Numba (cpu.py); those of a CUDA device there, by Triton (triton.py).
Promise: results are functions of the arguments alone, whatever the pieces, the chunks, the number of threads and the
device.

Threads: the caller and a pool of our own take chunks of a large tensor from one queue; the kernels hold no GIL. Not
Numba's prange, whose threading layers start a second OpenMP or TBB beside torch's.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError
from ..places import writable_triton_cache
from . import cpu, cpu_hash
from .layout import Piece
from .spec import DISTRIBUTIONS, MASK, ROUNDINGS, add_fingerprints, fingerprint_key, normal_table

__all__ = [
    "DISTRIBUTIONS",
    "ROUNDINGS",
    "add_fingerprints",
    "fill_",
    "fingerprint",
    "move_",
    "perturb",
    "perturb_rows",
    "set_threads",
]

CHUNK = 32_768  # draws; less than two of these are not worth waking a thread for

_KIND = {torch.float32: cpu.FLOAT32, torch.bfloat16: cpu.BFLOAT16, torch.float16: cpu.FLOAT16}
_DISTRIBUTION = {name: code for code, name in enumerate(DISTRIBUTIONS)}
_ROUNDING = {name: code for code, name in enumerate(ROUNDINGS)}
_TABLE = normal_table().view(np.uint32)
_TABLE_ADDRESS = _TABLE.ctypes.data

_threads: int | None = None
_pool: tuple[int, ThreadPoolExecutor] | None = None


def set_threads(n: int | None) -> None:
    """How many threads a large tensor is cut over, the caller included; None: as many as torch uses."""
    global _threads
    assert n is None or n >= 1
    _threads = n


def _forget_pool() -> None:
    global _pool
    _pool = None


os.register_at_fork(after_in_child=_forget_pool)  # threads do not survive a fork, and a lock may be held


def _workers(n: int) -> ThreadPoolExecutor:
    """A pool of at least n threads; it only grows, since tensors of different sizes want different numbers."""
    global _pool
    if _pool is None or _pool[0] < n:
        if _pool is not None:
            _pool[1].shutdown(wait=False)
        _pool = n, ThreadPoolExecutor(n, thread_name_prefix="hpcfed-noise")
    return _pool[1]


def _spread(kernel: Callable[[int, int], Any], piece: Piece, total: int, rounds: int = 1) -> list[Any]:
    """kernel(lo, hi) over [0, total), in one call or in chunks. Returns what the chunks returned, in any order."""
    least = max(cpu.TILE, CHUNK // rounds)
    threads = min(_threads or torch.get_num_threads(), total // least)
    if threads <= 1:
        return [kernel(0, total)]
    size = max(least, total // (threads * 4))
    cuts = [_aligned(at, piece) for at in range(0, total, size)] + [total]
    chunks = iter(list(itertools.pairwise(cuts)))  # shared: next() of a list's iterator is atomic

    def work() -> list[Any]:
        return [kernel(lo, hi) for lo, hi in chunks]

    helpers = [_workers(threads - 1).submit(work) for _ in range(threads - 1)]
    try:
        done = work()
    finally:
        # A helper that never got a core is not waited for: right after a matrix product the threads of torch's OpenMP
        # spin for milliseconds. One that runs is, even when interrupted: it writes to memory that our caller frees.
        others = [helper.result() for helper in helpers if not helper.cancel()]
    return done + [result for results in others for result in results]


def _aligned(cut: int, piece: Piece) -> int:
    """`cut`, moved back to the start of its tile or run, so that no tile is drawn twice."""
    run, within = divmod(cut, piece.length)
    return cut - min(within, (int(piece.starts[run]) + within) % cpu.TILE)


def _signed(x: int) -> int:
    """A 64-bit pattern as the int64 that Numba takes."""
    x &= MASK
    return x - (x >> 63 << 64)


def _device_engine(tensor: Tensor) -> Any:
    """triton.py, for a tensor that is not on the CPU; the only place where a device is chosen."""
    if tensor.device.type != "cuda":
        raise ConfigError(f"a tensor on {tensor.device}: directions are drawn on CPUs and on CUDA devices")
    writable_triton_cache()
    try:
        from . import triton
    except ImportError as error:
        raise ConfigError(f"weights on {tensor.device} need Triton ({error}): pip install 'hpcfed[gpu]'") from None
    return triton


def _fits(tensor: Tensor, piece: Piece) -> int:
    n = tensor.numel()
    assert tensor.is_contiguous() and tensor.device.type == "cpu", "the CPU engine takes contiguous CPU tensors"
    assert n == len(piece.starts) * piece.length, f"a piece of {piece.numel} elements for a tensor of {n}"
    return n


@lru_cache(16_384)
def _fingerprint_keys(key: int, dtype: torch.dtype) -> tuple[int, ...]:
    name = str(dtype).removeprefix("torch.")
    return tuple(_signed(fingerprint_key(key, name, lane)) for lane in range(2))


def fill_(out: Tensor, seed: int, piece: Piece, distribution: str) -> None:
    """out <- z of a piece, to nearest in out's dtype. out: float32, bfloat16 or float16 [piece.numel]."""
    if out.device.type != "cpu":
        return _device_engine(out).fill_(out, seed, piece, distribution)
    total = _fits(out, piece)
    code, kind, starts, length = _DISTRIBUTION[distribution], _KIND[out.dtype], piece.starts, piece.length
    at, key, seed = out.data_ptr(), _signed(piece.key), _signed(seed)
    _spread(lambda lo, hi: cpu.fill(at, starts, length, lo, hi, key, seed, code, kind, _TABLE_ADDRESS), piece, total)


def perturb(
    w: Tensor, plus: Tensor, minus: Tensor | None, seed: int | Tensor, mu: float, piece: Piece, distribution: str
) -> None:
    """plus <- w + mu z and minus <- w - mu z, from one draw; w is only read.

    mu z and the sum are each rounded to float32, then to nearest even in w's dtype, which plus and minus share.
    minus = None skips that side. The three do not overlap.

    seed: on a CUDA device also int64 [1] there, whose bits are read when the kernel runs: a captured graph that is
    replayed draws the direction that the tensor names by then. CPU tensors take an int.
    """
    if w.device.type != "cpu":
        return _device_engine(w).perturb(w, plus, minus, seed, mu, piece, distribution)
    assert not isinstance(seed, Tensor), "the CPU engine takes a seed as an int"
    total = _fits(w, piece)
    assert plus.dtype == w.dtype and _fits(plus, piece) == total
    assert minus is None or (minus.dtype == w.dtype and _fits(minus, piece) == total)
    code, kind, starts, length = _DISTRIBUTION[distribution], _KIND[w.dtype], piece.starts, piece.length
    key, seed = _signed(piece.key), _signed(seed)
    at, up, down = w.data_ptr(), plus.data_ptr(), 0 if minus is None else minus.data_ptr()

    def kernel(lo: int, hi: int) -> None:
        cpu.perturb(at, up, down, starts, length, lo, hi, key, seed, mu, code, kind, _TABLE_ADDRESS)

    _spread(kernel, piece, total)


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
    """plus <- w[rows] + mu z[rows] and minus <- w[rows] - mu z[rows], as perturb; only those rows of z are drawn.

    w: the whole of a parameter, [V, ...], and piece its piece.  rows: int64 [n] on w's device.  plus, minus: [n, ...].
    """
    if w.device.type != "cpu":
        return _device_engine(w).perturb_rows(w, rows, plus, minus, seed, mu, piece, distribution)
    looked_up = piece.rows(rows.numpy(), w[0].numel())
    perturb(w[rows], plus, minus, seed, mu, looked_up, distribution)


def move_(
    params: Sequence[tuple[Tensor, Piece]],
    seeds: np.ndarray,
    coefficients: np.ndarray,
    distribution: str,
    rounding: str,
    *,
    once: bool = False,
) -> None:
    """w <- round(w - c z) for each (seed, c) in turn, in one sweep over each w: the same bits as n single moves.

    params: tensors on one device, none twice, and their pieces; on a CUDA device they move in a launch a dtype.
    seeds: uint64 [n]. coefficients: float32 [n]. rounding: "nearest" or "stochastic", after every step, in w's dtype;
    float32 has nothing left to round. A finite value that outgrows the dtype becomes infinite.

    once: w <- round(w - c_1 z_1 - c_2 z_2 - ...) instead: the sum from the left in float32 and one rounding, by the
    bits of the last seed if stochastic. Steps with c = 0 are left out (each would turn some -0 to +0, and no more);
    with none left, w is not touched. In float32 the same as without `once`, but for those.
    """
    if params and params[0][0].device.type != "cpu":
        return _device_engine(params[0][0]).move_(params, seeds, coefficients, distribution, rounding, once=once)
    assert seeds.dtype == np.uint64 and coefficients.dtype == np.float32 and len(seeds) == len(coefficients)
    steps = coefficients != 0 if once else slice(None)  # a NaN is a step
    chosen, c = np.array(seeds[steps]), np.array(coefficients[steps])  # contiguous, writable: the kernels' signature
    for w, piece in params:
        total = _fits(w, piece)
        if len(chosen):
            kernel = _move_kernel(w, chosen, c, int(seeds[-1]), piece, distribution, rounding, once)
            _spread(kernel, piece, total, len(chosen))


def _move_kernel(
    w: Tensor,
    seeds: np.ndarray,
    c: np.ndarray,
    rounder: int,
    piece: Piece,
    distribution: str,
    rounding: str,
    once: bool,
) -> Callable[[int, int], None]:
    """Moves local elements lo to hi of w; rounder: the seed of the bits that round a sum."""
    code, way, kind, last = _DISTRIBUTION[distribution], _ROUNDING[rounding], _KIND[w.dtype], _signed(rounder)
    at, starts, length, key = w.data_ptr(), piece.starts, piece.length, _signed(piece.key)

    def kernel(lo: int, hi: int) -> None:
        if once or kind == cpu.FLOAT32:  # whose every step is rounded anyway
            cpu.move_once(at, starts, length, lo, hi, key, seeds, c, last, code, way, kind, _TABLE_ADDRESS)
        else:
            cpu.move(at, starts, length, lo, hi, key, seeds, c, code, way, kind, _TABLE_ADDRESS)

    return kernel


def fingerprint(tensor: Tensor, piece: Piece) -> int:
    """128 bits of (values' bits, dtype, parameter name, elements); any dtype of 1, 2, 4 or 8 bytes; 0 if empty.

    Two independent sums mod 2^64: put pieces together with add_fingerprints(), not with +.
    """
    if tensor.device.type != "cpu":
        return int(_device_engine(tensor).fingerprint(tensor, piece))
    total, size = _fits(tensor, piece), tensor.element_size()
    assert size in (1, 2, 4, 8), f"{tensor.dtype} has no fingerprint"
    a, b = _fingerprint_keys(piece.key, tensor.dtype)
    at, starts, length = tensor.data_ptr(), piece.starts, piece.length
    sums = _spread(lambda lo, hi: cpu_hash.fingerprint(at, starts, length, lo, hi, size, a, b), piece, total)
    return add_fingerprints(*(high << 64 | low for low, high in sums))
