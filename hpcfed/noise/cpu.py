"""CPU kernels of noise spec v1, in Numba: the fast twin of spec.py, equal to it bit for bit.

How     A piece is walked in tiles: stretches of one run between two multiples of 2,048 in the full parameter. A tile's
        random bits, its z and its weights as float32 live in buffers that stay in the L1 cache; with many seeds the
        weights stay there over all of them, so memory is swept once. Loops over the 16 lanes have no branch and no
        call, so LLVM turns them into one AVX-512 (or two AVX2, four NEON) instructions each.
Legend  address: of the first local element, an integer (a torch tensor's data_ptr()).  [lo, hi): the local elements
        that this call handles, so that threads share a tensor.  starts, length: Piece.  seed, key: 64-bit patterns
        in int64, the only integer that Numba takes from Python without choosing a type by value.
Promise no fastmath: multiply and add are never contracted. No lock, no Python object: the GIL is free.

Numba's cache does not notice a change of what a kernel calls in another file: after an edit of jit.py, cpu_draw.py or
cpu_formats.py, delete __pycache__. The fingerprint is in cpu_hash.py.
"""

from __future__ import annotations

import numpy as np
from numba import carray, types

from .cpu_draw import GAUSSIAN, TILE, draw_bits, draw_bits_of, draw_z, look_up_sizes, mix64
from .cpu_formats import from_float16, pack_float16, quiet, to_bfloat16, to_bfloat16_by, to_float16, to_float16_by
from .jit import F64, I64, STARTS, Array, bits_of, float_of, jit, kernel, pointer, prefetch
from .spec import ROUNDING_STREAM

SCRATCH = 14 * TILE + 64  # bytes of one thread's buffers
FLOAT32, BFLOAT16, FLOAT16 = 0, 1, 2  # kinds
NEAREST, STOCHASTIC = 0, 1  # roundings

_u32, _u64 = np.uint32, np.uint64
_STREAM = _u64(ROUNDING_STREAM)


@jit
def fetch(address: int, size: int) -> None:
    """Begin to fetch `size` bytes at an address, so that they come while z is drawn."""
    for line in range(0, size, 64):
        prefetch(address + line)


@jit
def load(x: Array, address: int, kind: int) -> None:
    """x: float32 [n] <- n elements of `kind` at an address."""
    n = len(x)
    out = x.view(np.uint32)
    if kind == FLOAT32:
        words = carray(pointer(address), (n,), np.uint32)
        for i in range(n):
            out[i] = words[i]
    elif kind == BFLOAT16:
        halves = carray(pointer(address), (n,), np.uint16)
        for i in range(n):
            out[i] = _u32(halves[i]) << _u32(16)
    else:
        halves = carray(pointer(address), (n,), np.uint16)
        for i in range(n):
            out[i] = from_float16(_u32(halves[i]))


@jit
def store(address: int, x: Array, kind: int) -> None:
    """n elements of `kind` at an address <- x: float32 [n], values that `kind` holds exactly."""
    n = len(x)
    bits = x.view(np.uint32)
    if kind == FLOAT32:
        words = carray(pointer(address), (n,), np.uint32)
        for i in range(n):
            words[i] = bits[i]
    elif kind == BFLOAT16:
        halves = carray(pointer(address), (n,), np.uint16)
        for i in range(n):
            halves[i] = np.uint16(bits[i] >> _u32(16))
    else:
        halves = carray(pointer(address), (n,), np.uint16)
        for i in range(n):
            halves[i] = np.uint16(pack_float16(bits[i]))


@jit
def add(out: Array, w: Array, z: Array, c: np.float32, kind: int) -> None:
    """out <- w + c z to nearest `kind`, all float32 [n]; two roundings to float32 first.

    out must be a buffer of its own: LLVM checks for overlap at run time and takes a scalar loop, ten times slower.
    """
    bits = out.view(np.uint32)
    if kind == FLOAT32:
        for i in range(len(out)):
            bits[i] = quiet(w[i] + c * z[i])
    elif kind == BFLOAT16:
        for i in range(len(out)):
            bits[i] = to_bfloat16(w[i] + c * z[i])
    else:
        for i in range(len(out)):
            bits[i] = to_float16(w[i] + c * z[i])


@jit
def put(address: int, buffer: Array, w: Array, z: Array, c: np.float32, kind: int) -> None:
    """n elements of `kind` at an address <- w + c z to nearest; buffer: float32 [n], scratch."""
    if kind == FLOAT32:
        add(carray(pointer(address), (len(w),), np.float32), w, z, c, kind)
    else:
        add(buffer, w, z, c, kind)
        store(address, buffer, kind)


@jit
def put_both(plus: int, minus: int, w: int, z: Array, c: np.float32, kind: int) -> None:
    """n elements of `kind` at two addresses <- w + c z and w - c z to nearest, w: n elements at an address."""
    n = len(z)
    if kind == FLOAT32:
        words = carray(pointer(w), (n,), np.uint32)
        up, down = carray(pointer(plus), (n,), np.uint32), carray(pointer(minus), (n,), np.uint32)
        for i in range(n):
            x, step = float_of(words[i]), c * z[i]
            up[i], down[i] = quiet(x + step), quiet(x - step)
        return
    halves = carray(pointer(w), (n,), np.uint16)
    above, below = carray(pointer(plus), (n,), np.uint16), carray(pointer(minus), (n,), np.uint16)
    if kind == BFLOAT16:
        for i in range(n):
            x, step = float_of(_u32(_u32(halves[i]) << _u32(16))), c * z[i]
            above[i] = np.uint16(to_bfloat16(x + step) >> _u32(16))
            below[i] = np.uint16(to_bfloat16(x - step) >> _u32(16))
    else:
        for i in range(n):
            x, step = float_of(from_float16(_u32(halves[i]))), c * z[i]
            above[i] = np.uint16(pack_float16(to_float16(x + step)))
            below[i] = np.uint16(pack_float16(to_float16(x - step)))


@jit
def add_stochastic(w: Array, z: Array, c: np.float32, random: Array, kind: int) -> None:
    """w <- w + c z to a neighbour in bfloat16 or float16, by random: uint16 [n]."""
    bits = w.view(np.uint32)
    if kind == BFLOAT16:
        for i in range(len(w)):
            bits[i] = to_bfloat16_by(w[i] + c * z[i], _u32(random[i]))
    else:
        for i in range(len(w)):
            bits[i] = to_float16_by(w[i] + c * z[i], _u32(random[i]))


@jit
def subtract(out: Array, w: Array, sizes: Array, bits: Array, c: np.float32) -> None:
    """out <- w - c z in float32; z: the sizes (uint32 bits of float32), bit 15 of `bits` as their sign; all [n]."""
    for i in range(len(out)):
        out[i] = w[i] - c * float_of(sizes[i] | (_u32(bits[i]) & _u32(0x8000)) << _u32(16))


@jit
def subtract_signs(x: Array, bits: Array, c0: np.float32, c1: np.float32, first: int, last: int) -> None:
    """x <- (x - c0 z0) - c1 z1 for rows first..last of a tile, as in spread_signs(); bits: uint16 [256], 128 a z.

    c z is c with its sign flipped where z is -1: exact. The second z costs no load and no store; with four at a time
    LLVM no longer takes the lanes into one register.
    """
    flip, p0, p1 = _u32(0x80000000), bits_of(c0), bits_of(c1)
    for row in range(first, last):
        out, halves = x[row * 256 : row * 256 + 256], bits[row * 16 : row * 16 + 144]
        for lane in range(16):
            word0, word1 = _u32(halves[lane]), _u32(halves[lane + 128])
            for slot in range(16):  # unrolled by LLVM, so that the lanes fill a register
                by = _u32(31 - slot)
                step0, step1 = p0 ^ (word0 << by & flip), p1 ^ (word1 << by & flip)
                out[slot * 16 + lane] = (out[slot * 16 + lane] - float_of(step0)) - float_of(step1)


# --- the kernels ----------------------------------------------------------------------------------------------------


@jit
def next_tile(at: int, hi: int, starts: Array, length: int) -> tuple[int, int, int]:
    """(tile, a, b): local element `at` is element a of a tile; b - a elements follow on in its run, up to `hi`."""
    run = at // length
    within = at - run * length
    element = starts[run] + within
    tile = element // TILE
    a = element - tile * TILE
    return tile, a, a + min(TILE - a, length - within, hi - at)


@jit
def buffers(scratch: Array) -> tuple[Array, Array, Array, Array]:
    """(bits uint16, z uint32, x float32, y float32), [2048] each, on cache lines of their own in uint8 [SCRATCH].

    Bare memory, not arrays that Numba counts references of: that would be dozens of atomic operations a tile.
    """
    at = (scratch.ctypes.data + 63) // 64 * 64
    bits, z = carray(pointer(at), (TILE,), np.uint16), carray(pointer(at + 2 * TILE), (TILE,), np.uint32)
    x, y = carray(pointer(at + 6 * TILE), (TILE,), np.float32), carray(pointer(at + 10 * TILE), (TILE,), np.float32)
    return bits, z, x, y


@kernel(I64, STARTS, I64, I64, I64, I64, I64, I64, I64, I64)
def fill(
    out: int,
    starts: Array,
    length: int,
    lo: int,
    hi: int,
    key: int,
    seed: int,
    distribution: int,
    kind: int,
    table: int,
) -> None:
    """out <- z to nearest `kind`."""
    quantiles = carray(pointer(table), (32768,), np.uint32)
    scratch = np.empty(SCRATCH, np.uint8)
    bits, z, zero, y = buffers(scratch)
    zero[:] = 0
    size = 4 if kind == FLOAT32 else 2
    at = lo
    while at < hi:
        tile, a, b = next_tile(at, hi, starts, length)
        draw_z(z, bits, quantiles, tile, a, b, _u64(seed), _u64(key), distribution)
        put(out + at * size, y[a:b], zero[a:b], z.view(np.float32)[a:b], np.float32(1), kind)
        at += b - a
    scratch[0] = 0  # Numba frees an array after its last use


@kernel(I64, I64, I64, STARTS, I64, I64, I64, I64, I64, F64, I64, I64, I64)
def perturb(
    w: int,
    plus: int,
    minus: int,
    starts: Array,
    length: int,
    lo: int,
    hi: int,
    key: int,
    seed: int,
    mu: float,
    distribution: int,
    kind: int,
    table: int,
) -> None:
    """plus <- w + mu z, minus <- w - mu z (not written if its address is 0), to nearest `kind`."""
    quantiles = carray(pointer(table), (32768,), np.uint32)
    scratch = np.empty(SCRATCH, np.uint8)
    bits, z, x, y = buffers(scratch)
    size = 4 if kind == FLOAT32 else 2
    c = np.float32(mu)
    at = lo
    while at < hi:
        tile, a, b = next_tile(at, hi, starts, length)
        fetch(w + at * size, (b - a) * size)
        draw_z(z, bits, quantiles, tile, a, b, _u64(seed), _u64(key), distribution)
        values = z.view(np.float32)[a:b]
        if minus != 0:
            put_both(plus + at * size, minus + at * size, w + at * size, values, c, kind)
        else:
            load(x[a:b], w + at * size, kind)
            put(plus + at * size, y[a:b], x[a:b], values, c, kind)
        at += b - a
    scratch[0] = 0  # Numba frees an array after its last use


@kernel(I64, STARTS, I64, I64, I64, I64, types.uint64[::1], types.float32[::1], I64, I64, I64, I64)
def move(
    w: int,
    starts: Array,
    length: int,
    lo: int,
    hi: int,
    key: int,
    seeds: Array,
    coefficients: Array,
    distribution: int,
    rounding: int,
    kind: int,
    table: int,
) -> None:
    """w <- round(w - c z) for each (seed, c) in turn, one sweep over w. kind: BFLOAT16 or FLOAT16."""
    quantiles = carray(pointer(table), (32768,), np.uint32)
    scratch = np.empty(SCRATCH, np.uint8)
    bits, z, x, y = buffers(scratch)
    at = lo
    while at < hi:
        tile, a, b = next_tile(at, hi, starts, length)
        weights, moved, values = x[a:b], y[a:b], z.view(np.float32)[a:b]
        load(weights, w + at * 2, kind)
        fetch(w + (at + b - a) * 2, TILE * 2)  # of the next tile
        for i in range(len(seeds)):
            draw_z(z, bits, quantiles, tile, a, b, seeds[i], _u64(key), distribution)
            if rounding == STOCHASTIC:
                draw_bits_of(bits, tile, a, b, mix64(seeds[i] ^ _STREAM), _u64(key))
                add_stochastic(weights, values, -coefficients[i], bits[a:b], kind)
            else:
                add(moved, weights, values, -coefficients[i], kind)
                weights, moved = moved, weights
        store(w + at * 2, weights, kind)
        at += b - a
    scratch[0] = 0  # Numba frees an array after its last use


@kernel(I64, STARTS, I64, I64, I64, I64, types.uint64[::1], types.float32[::1], I64, I64, I64, I64, I64)
def move_once(
    w: int,
    starts: Array,
    length: int,
    lo: int,
    hi: int,
    key: int,
    seeds: Array,
    coefficients: Array,
    rounder: int,
    distribution: int,
    rounding: int,
    kind: int,
    table: int,
) -> None:
    """w <- round(w - c_1 z_1 - c_2 z_2 - ...), in float32 up to the one rounding, whose bits are those of `rounder`."""
    quantiles = carray(pointer(table), (32768,), np.uint32)
    scratch = np.empty(SCRATCH, np.uint8)
    bits, z, x, y = buffers(scratch)
    size, n = 4 if kind == FLOAT32 else 2, len(seeds)
    at = lo
    while at < hi:
        tile, a, b = next_tile(at, hi, starts, length)
        weights, moved = x[a:b], y[a:b]
        load(weights, w + at * size, kind)
        fetch(w + (at + b - a) * size, TILE * size)  # of the next tile
        if distribution == GAUSSIAN:
            for i in range(n):
                draw_bits_of(bits, tile, a, b, seeds[i], _u64(key))
                look_up_sizes(z[a:b], bits[a:b], quantiles)
                subtract(moved, weights, z[a:b], bits[a:b], coefficients[i])
                weights, moved = moved, weights
        else:
            for i in range(0, n - 1, 2):
                draw_bits(bits, _u64(tile), 1, seeds[i], _u64(key))
                draw_bits(bits[128:], _u64(tile), 1, seeds[i + 1], _u64(key))
                subtract_signs(x, bits, coefficients[i], coefficients[i + 1], a // 256, (b + 255) // 256)
            if n % 2 == 1:
                draw_bits(bits, _u64(tile), 1, seeds[n - 1], _u64(key))
                bits[128:256] = 0  # and a step of +0: x - (+0) is x, also for x = -0
                subtract_signs(x, bits, coefficients[n - 1], np.float32(0), a // 256, (b + 255) // 256)
        values = z.view(np.float32)[a:b]
        values[:] = np.float32(-0.0)  # x + 1 (-0) is x, also for x = -0: what is left of the sum is its rounding
        if rounding == STOCHASTIC and kind != FLOAT32:
            draw_bits_of(bits, tile, a, b, mix64(_u64(rounder) ^ _STREAM), _u64(key))
            add_stochastic(weights, values, np.float32(1), bits[a:b], kind)
            store(w + at * size, weights, kind)
        else:
            put(w + at * size, moved, weights, values, np.float32(1), kind)
        at += b - a
    scratch[0] = 0  # Numba frees an array after its last use
