"""Random bits and z of noise spec v1, in Numba: what the CPU kernels draw.

Legend  tile: 2,048 elements of the full parameter, 16 groups of 128; a, b: elements in it.  seed, key: uint64.
        bits: uint16, of an element 16 (gaussian, rounding) or, in 128 of them, one (rademacher).  z: bits of float32.
"""

from __future__ import annotations

import numpy as np

from .jit import Array, jit

TILE = 2048
GAUSSIAN, RADEMACHER = 0, 1  # distributions

_u32, _u64 = np.uint32, np.uint64
_M0, _M1, _W0, _W1 = _u64(0xD2511F53), _u64(0xCD9E8D57), _u32(0x9E3779B9), _u32(0xBB67AE85)
_MIX1, _MIX2 = _u64(0xBF58476D1CE4E5B9), _u64(0x94D049BB133111EB)


@jit
def mix64(x: np.uint64) -> np.uint64:
    """splitmix64's finaliser."""
    x = (x ^ (x >> _u64(30))) * _MIX1
    x = (x ^ (x >> _u64(27))) * _MIX2
    return x ^ (x >> _u64(31))


@jit
def draw_bits(bits: Array, group: np.uint64, groups: int, seed: np.uint64, key: np.uint64) -> None:
    """bits[128 i + 16 slot + lane] <- 16 bits of block 16 (group + i) + lane; bits: uint16 [128 * groups]."""
    low, high = _u64(0xFFFFFFFF), _u64(32)
    k0, k1 = _u32(seed & low), _u32(seed >> high)
    n0, n1 = _u32(key & low), _u32(key >> high)
    for i in range(groups):
        block = (group + _u64(i)) * _u64(16)
        b0, b1 = _u32(block & low), _u32(block >> high)
        for lane in range(16):
            c0, c1, c2, c3 = b0 + _u32(lane), b1, n0, n1  # 16 divides the block: lanes never carry into b1
            a0, a1 = k0, k1
            for _ in range(10):  # unrolled by LLVM; all lanes' words stay in registers
                p0, p1 = _M0 * _u64(c0), _M1 * _u64(c2)
                c0, c1 = _u32(p1 >> high) ^ c1 ^ a0, _u32(p1)
                c2, c3 = _u32(p0 >> high) ^ c3 ^ a1, _u32(p0)
                a0, a1 = _u32(a0 + _W0), _u32(a1 + _W1)
            at = i * 128 + lane
            bits[at], bits[at + 16] = np.uint16(c0), np.uint16(c0 >> _u32(16))
            bits[at + 32], bits[at + 48] = np.uint16(c1), np.uint16(c1 >> _u32(16))
            bits[at + 64], bits[at + 80] = np.uint16(c2), np.uint16(c2 >> _u32(16))
            bits[at + 96], bits[at + 112] = np.uint16(c3), np.uint16(c3 >> _u32(16))


@jit
def draw_bits_of(bits: Array, tile: int, a: int, b: int, seed: np.uint64, key: np.uint64) -> None:
    """bits[a:b] <- the 16 bits of elements a..b of a tile (and of their neighbours in the same groups)."""
    first, last = a // 128, (b + 127) // 128
    draw_bits(bits[first * 128 : last * 128], _u64(tile) * _u64(TILE // 128) + _u64(first), last - first, seed, key)


@jit
def look_up_sizes(z: Array, bits: Array, table: Array) -> None:
    """|Quantiles| of the normal. z: uint32 [n] (the bits of float32), bits: uint16 [n], table: uint32 [32768]."""
    for i in range(len(z)):  # scalar loads and nothing else: measured faster than a gather, and than signs in here
        z[i] = table[_u64(bits[i] & np.uint16(0x7FFF))]


@jit
def look_up(z: Array, bits: Array, table: Array) -> None:
    """Quantiles of the normal: the sizes, and bit 15 as their sign."""
    look_up_sizes(z, bits, table)
    for i in range(len(z)):
        z[i] |= (_u32(bits[i]) & _u32(0x8000)) << _u32(16)


@jit
def spread_signs(z: Array, bits: Array, first: int, last: int) -> None:
    """Rows first..last of a Rademacher tile, 256 elements each. z: uint32 [2048], bits: uint16 [128], 16 a row."""
    for row in range(first, last):
        out, halves = z[row * 256 : row * 256 + 256], bits[row * 16 : row * 16 + 16]
        for lane in range(16):
            word = _u32(halves[lane])
            for slot in range(16):  # unrolled by LLVM, so that the lanes fill a register
                out[slot * 16 + lane] = _u32(0x3F800000) | _u32((word << _u32(31 - slot)) & _u32(0x80000000))


@jit
def draw_z(
    z: Array, bits: Array, table: Array, tile: int, a: int, b: int, seed: np.uint64, key: np.uint64, distribution: int
) -> None:
    """z[a:b] <- the direction at elements a..b of a tile. z: uint32 [2048], bits: uint16 [2048], scratch."""
    if distribution == GAUSSIAN:
        draw_bits_of(bits, tile, a, b, seed, key)
        look_up(z[a:b], bits[a:b], table)
    else:
        draw_bits(bits, _u64(tile), 1, seed, key)
        spread_signs(z, bits, a // 256, (b + 255) // 256)
