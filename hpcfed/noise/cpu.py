"""CPU kernels of noise spec v1, in Numba: the fast twin of spec.py, equal to it bit for bit.

How     A piece is walked in tiles: stretches of one run between two multiples of 2,048 in the full parameter. A tile's
        random bits, its z and its weights as float32 live in buffers that stay in the L1 cache; with many seeds the
        weights stay there over all of them, so memory is swept once. Loops over the 16 lanes have no branch and no
        call, so LLVM turns them into one AVX-512 (or two AVX2, four NEON) instructions each.
Legend  address: of the first local element, an integer (a torch tensor's data_ptr()).  [lo, hi): the local elements
        that this call handles, so that threads share a tensor.  starts, length: Piece.  seed, key: 64-bit patterns
        in int64, the only integer that Numba takes from Python without choosing a type by value.
Promise no fastmath: multiply and add are never contracted. No lock, no Python object: the GIL is free.

All kernels are in this one file because Numba's cache does not notice a change of a callee in another file.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from .spec import LANES_OF_FINGERPRINT

TILE = 2048
SCRATCH = 14 * TILE + 64  # bytes of one thread's buffers
FLOAT32, BFLOAT16, FLOAT16 = 0, 1, 2  # kinds
GAUSSIAN, RADEMACHER = 0, 1  # distributions
NEAREST, STOCHASTIC = 0, 1  # roundings

jit = njit(nogil=True, cache=True, error_model="numpy")

_u32, _u64 = np.uint32, np.uint64
_M0, _M1, _W0, _W1 = _u64(0xD2511F53), _u64(0xCD9E8D57), _u32(0x9E3779B9), _u32(0xBB67AE85)
_NAN, _INF, _SIZE = _u32(0x7FC00000), _u32(0x7F800000), _u32(0x7FFFFFFF)
_TINY, _LAST = _u32(113 << 23), _u32(0x477FE000)  # float16: least normal 2^-14, largest 65504
_ROUNDING_STREAM, _MIX1, _MIX2 = _u64(0xA0761D6478BD642F), _u64(0xBF58476D1CE4E5B9), _u64(0x94D049BB133111EB)
_STRIDE_A, _MUL_A1, _MUL_A2 = (_u64(x) for x in LANES_OF_FINGERPRINT[0])
_STRIDE_B, _MUL_B1, _MUL_B2 = (_u64(x) for x in LANES_OF_FINGERPRINT[1])


@intrinsic
def _pointer(typing: Any, address: Any) -> Any:
    """An integer as a pointer, for carray()."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), codegen


@intrinsic
def _bits(typing: Any, x: Any) -> Any:
    """The bits of a float32."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(types.uint32))

    return types.uint32(types.float32), codegen


@intrinsic
def _float(typing: Any, bits: Any) -> Any:
    """The float32 of some bits."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(types.float32))

    return types.float32(types.uint32), codegen


# --- random bits and z --------------------------------------------------------------------------------------------


@jit
def mix64(x):
    """splitmix64's finaliser."""
    x = (x ^ (x >> _u64(30))) * _MIX1
    x = (x ^ (x >> _u64(27))) * _MIX2
    return x ^ (x >> _u64(31))


@jit
def draw_bits(bits, group, groups, seed, key):
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
def draw_bits_of(bits, tile, a, b, seed, key):
    """bits[a:b] <- the 16 bits of elements a..b of a tile (and of their neighbours in the same groups)."""
    first, last = a // 128, (b + 127) // 128
    draw_bits(bits[first * 128 : last * 128], _u64(tile) * _u64(TILE // 128) + _u64(first), last - first, seed, key)


@jit
def look_up(z, bits, table):
    """Quantiles of the normal. z: uint32 [n] (the bits of float32), bits: uint16 [n], table: uint32 [32768]."""
    for i in range(len(z)):  # scalar loads; measured faster with the signs in a loop of their own
        z[i] = table[_u64(bits[i] & np.uint16(0x7FFF))]
    for i in range(len(z)):
        z[i] |= (_u32(bits[i]) & _u32(0x8000)) << _u32(16)


@jit
def spread_signs(z, bits, first, last):
    """Rows first..last of a Rademacher tile. z: uint32 [2048], bits: uint16 [128], slot s is bit s % 16 of row s // 16."""
    for row in range(first, last):
        out, halves = z[row * 256 : row * 256 + 256], bits[row * 16 : row * 16 + 16]
        for lane in range(16):
            word = _u32(halves[lane])
            for slot in range(16):  # unrolled by LLVM, so that the lanes fill a register
                out[slot * 16 + lane] = _u32(0x3F800000) | _u32((word << _u32(31 - slot)) & _u32(0x80000000))


@jit
def draw_z(z, bits, table, tile, a, b, seed, key, distribution):
    """z[a:b] <- the direction at elements a..b of a tile. z: uint32 [2048], bits: uint16 [2048], scratch."""
    if distribution == GAUSSIAN:
        draw_bits_of(bits, tile, a, b, seed, key)
        look_up(z[a:b], bits[a:b], table)
    else:
        draw_bits(bits, _u64(tile), 1, seed, key)
        spread_signs(z, bits, a // 256, (b + 255) // 256)


# --- number formats: float32 bits in, float32 bits of the rounded value out ---------------------------------------


@jit
def quiet(x):
    """Bits of a float32, every NaN as the one quiet positive NaN."""
    bits = _bits(x)
    return _NAN if (bits & _SIZE) > _INF else bits


@jit
def to_bfloat16(x):
    """To the nearest bfloat16, ties to even."""
    bits = _bits(x)
    even = _u32(bits >> _u32(16)) & _u32(1)
    rounded = _u32(bits + _u32(0x7FFF) + even) & _u32(0xFFFF0000)
    return _NAN if _u32(bits & _SIZE) > _INF else rounded


@jit
def to_bfloat16_by(x, r):
    """To a bfloat16 neighbour, by 16 random bits."""
    bits = _bits(x)
    size = _u32(bits & _SIZE)
    rounded = bits if size == _INF else _u32(bits + r) & _u32(0xFFFF0000)
    return _NAN if size > _INF else rounded


@jit
def to_float16(x):
    """To the nearest float16, ties to even."""
    bits = _bits(x)
    size, sign = _u32(bits & _SIZE), _u32(bits & _u32(0x80000000))
    even = _u32(size >> _u32(13)) & _u32(1)
    normal = _u32(size + _u32(0xFFF) + even) & _u32(0xFFFFE000)
    normal = _INF if normal > _LAST else normal
    # 1/2 has the spacing 2^-24 of float16's subnormals: adding it rounds to that grid.
    tiny = _bits((_float(size) + np.float32(0.5)) - np.float32(0.5))
    rounded = _u32((tiny if size < _TINY else normal) | sign)
    return _NAN if size > _INF else rounded


@jit
def to_float16_by(x, r):
    """To a float16 neighbour, by 16 random bits (13 of them suffice in the normal range)."""
    bits = _bits(x)
    size, sign = _u32(bits & _SIZE), _u32(bits & _u32(0x80000000))
    normal = _u32(size + _u32(r & _u32(0x1FFF))) & _u32(0xFFFFE000)
    normal = _INF if normal > _LAST else normal
    small = size if size < _TINY else _u32(0)
    fixed = np.int32(_float(small) * np.float32(2.0**40))  # < 2^26, cut off below 2^-40
    units = np.float32(np.int32(np.int32(fixed + np.int32(r)) >> np.int32(16))) * np.float32(2.0**-24)
    rounded = _u32((_bits(units) if size < _TINY else normal) | sign)
    return _NAN if size > _INF else rounded


@jit
def from_float16(h):
    """float32 bits of float16 bits (both in 32-bit integers)."""
    size, sign = _u32(h & _u32(0x7FFF)), _u32(_u32(h & _u32(0x8000)) << _u32(16))
    shifted = _u32(size << _u32(13))
    normal = _u32(shifted | _INF) if size >= _u32(0x7C00) else _u32(shifted + _u32(112 << 23))
    tiny = _bits(np.float32(np.int32(size)) * np.float32(2.0**-24))
    return _u32((tiny if size < _u32(0x400) else normal) | sign)


@jit
def pack_float16(bits):
    """float16 bits of float32 bits that a float16 holds exactly."""
    size, sign = _u32(bits & _SIZE), _u32(bits >> _u32(16)) & _u32(0x8000)
    shifted = _u32(size >> _u32(13))
    normal = _u32(_u32(0x7C00) | _u32(shifted & _u32(0x3FF))) if size >= _INF else _u32(shifted - _u32(112 << 10))
    small = size if size < _TINY else _u32(0)
    tiny = _u32(np.int32(_float(small) * np.float32(2.0**24)))
    return _u32((tiny if size < _TINY else normal) | sign)


# --- tiles --------------------------------------------------------------------------------------------------------


@jit
def load(x, address, kind):
    """x: float32 [n] <- n elements of `kind` at an address."""
    n = len(x)
    out = x.view(np.uint32)
    if kind == FLOAT32:
        words = carray(_pointer(address), (n,), np.uint32)
        for i in range(n):
            out[i] = words[i]
    elif kind == BFLOAT16:
        halves = carray(_pointer(address), (n,), np.uint16)
        for i in range(n):
            out[i] = _u32(halves[i]) << _u32(16)
    else:
        halves = carray(_pointer(address), (n,), np.uint16)
        for i in range(n):
            out[i] = from_float16(_u32(halves[i]))


@jit
def store(address, x, kind):
    """n elements of `kind` at an address <- x: float32 [n], values that `kind` holds exactly."""
    n = len(x)
    bits = x.view(np.uint32)
    if kind == FLOAT32:
        words = carray(_pointer(address), (n,), np.uint32)
        for i in range(n):
            words[i] = bits[i]
    elif kind == BFLOAT16:
        halves = carray(_pointer(address), (n,), np.uint16)
        for i in range(n):
            halves[i] = np.uint16(bits[i] >> _u32(16))
    else:
        halves = carray(_pointer(address), (n,), np.uint16)
        for i in range(n):
            halves[i] = np.uint16(pack_float16(bits[i]))


@jit
def add(out, w, z, c, kind):
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
def put(address, buffer, w, z, c, kind):
    """n elements of `kind` at an address <- w + c z to nearest; buffer: float32 [n], scratch."""
    if kind == FLOAT32:
        add(carray(_pointer(address), (len(w),), np.float32), w, z, c, kind)
    else:
        add(buffer, w, z, c, kind)
        store(address, buffer, kind)


@jit
def add_stochastic(w, z, c, random, kind):
    """w <- w + c z to a neighbour in bfloat16 or float16, by random: uint16 [n]."""
    bits = w.view(np.uint32)
    if kind == BFLOAT16:
        for i in range(len(w)):
            bits[i] = to_bfloat16_by(w[i] + c * z[i], _u32(random[i]))
    else:
        for i in range(len(w)):
            bits[i] = to_float16_by(w[i] + c * z[i], _u32(random[i]))


@jit
def next_tile(at, hi, starts, length):
    """(tile, a, b): local element `at` is element a of a tile; b - a elements follow on in its run, up to `hi`."""
    run = at // length
    within = at - run * length
    element = starts[run] + within
    tile = element // TILE
    a = element - tile * TILE
    return tile, a, a + min(TILE - a, length - within, hi - at)


# --- kernels ------------------------------------------------------------------------------------------------------

_I, _F, _STARTS = types.int64, types.float64, types.int64[::1]


def kernel(*arguments: Any, returns: Any = types.void) -> Any:
    """Compiled when imported (from the cache but for the first time), for one signature only."""
    return njit(returns(*arguments), nogil=True, cache=True, error_model="numpy")


@jit
def buffers(scratch):
    """(bits uint16, z uint32, x float32, y float32), [2048] each, on cache lines of their own in uint8 [SCRATCH].

    Bare memory, not arrays that Numba counts references of: that would be dozens of atomic operations a tile.
    """
    at = (scratch.ctypes.data + 63) // 64 * 64
    bits, z = carray(_pointer(at), (TILE,), np.uint16), carray(_pointer(at + 2 * TILE), (TILE,), np.uint32)
    x, y = carray(_pointer(at + 6 * TILE), (TILE,), np.float32), carray(_pointer(at + 10 * TILE), (TILE,), np.float32)
    return bits, z, x, y


@kernel(_I, _STARTS, _I, _I, _I, _I, _I, _I, _I, _I)
def fill(out, starts, length, lo, hi, key, seed, distribution, kind, table):
    """out <- z to nearest `kind`."""
    quantiles = carray(_pointer(table), (32768,), np.uint32)
    scratch = np.empty(SCRATCH, np.uint8)
    bits, z, x, zero = buffers(scratch)
    zero[:] = 0
    size = 4 if kind == FLOAT32 else 2
    at = lo
    while at < hi:
        tile, a, b = next_tile(at, hi, starts, length)
        draw_z(z, bits, quantiles, tile, a, b, _u64(seed), _u64(key), distribution)
        values = z.view(np.float32)[a:b]
        if kind != FLOAT32:
            add(x[a:b], zero[a:b], values, np.float32(1), kind)
            values = x[a:b]
        store(out + at * size, values, kind)
        at += b - a
    scratch[0] = 0  # Numba frees an array after its last use


@kernel(_I, _I, _I, _STARTS, _I, _I, _I, _I, _I, _F, _I, _I, _I)
def perturb(w, plus, minus, starts, length, lo, hi, key, seed, mu, distribution, kind, table):
    """plus <- w + mu z, minus <- w - mu z (not written if its address is 0), to nearest `kind`."""
    quantiles = carray(_pointer(table), (32768,), np.uint32)
    scratch = np.empty(SCRATCH, np.uint8)
    bits, z, x, y = buffers(scratch)
    size = 4 if kind == FLOAT32 else 2
    c = np.float32(mu)
    at = lo
    while at < hi:
        tile, a, b = next_tile(at, hi, starts, length)
        draw_z(z, bits, quantiles, tile, a, b, _u64(seed), _u64(key), distribution)
        weights, values = x[a:b], z.view(np.float32)[a:b]
        if kind == FLOAT32:
            weights = carray(_pointer(w + at * size), (b - a,), np.float32)
        else:
            load(weights, w + at * size, kind)
        put(plus + at * size, y[a:b], weights, values, c, kind)
        if minus != 0:
            put(minus + at * size, y[a:b], weights, values, -c, kind)  # w + (-c) z is w - c z: negation is exact
        at += b - a
    scratch[0] = 0  # Numba frees an array after its last use


@kernel(_I, _STARTS, _I, _I, _I, _I, types.uint64[::1], types.float32[::1], _I, _I, _I, _I)
def move(w, starts, length, lo, hi, key, seeds, coefficients, distribution, rounding, kind, table):
    """w <- round(w - c z) for each (seed, c) in turn, one sweep over w."""
    quantiles = carray(_pointer(table), (32768,), np.uint32)
    scratch = np.empty(SCRATCH, np.uint8)
    bits, z, x, y = buffers(scratch)
    size = 4 if kind == FLOAT32 else 2
    at = lo
    while at < hi:
        tile, a, b = next_tile(at, hi, starts, length)
        weights, moved, values = x[a:b], y[a:b], z.view(np.float32)[a:b]
        load(weights, w + at * size, kind)
        for i in range(len(seeds)):
            draw_z(z, bits, quantiles, tile, a, b, seeds[i], _u64(key), distribution)
            if rounding == STOCHASTIC and kind != FLOAT32:
                draw_bits_of(bits, tile, a, b, mix64(seeds[i] ^ _ROUNDING_STREAM), _u64(key))
                add_stochastic(weights, values, -coefficients[i], bits[a:b], kind)
            else:
                add(moved, weights, values, -coefficients[i], kind)
                weights, moved = moved, weights
        store(w + at * size, weights, kind)
        at += b - a
    scratch[0] = 0  # Numba frees an array after its last use


@jit
def hash_run(values, key_a, key_b):
    """The two sums of a fingerprint over a run; keys: those of its first element."""
    a, b = _u64(0), _u64(0)
    for i in range(len(values)):
        v = _u64(values[i])
        x = v ^ key_a
        x = (x ^ (x >> _u64(32))) * _MUL_A1
        x = (x ^ (x >> _u64(29))) * _MUL_A2
        a += x ^ (x >> _u64(32))
        y = v ^ key_b
        y = (y ^ (y >> _u64(32))) * _MUL_B1
        y = (y ^ (y >> _u64(29))) * _MUL_B2
        b += y ^ (y >> _u64(32))
        key_a += _STRIDE_A
        key_b += _STRIDE_B
    return a, b


@kernel(_I, _STARTS, _I, _I, _I, _I, _I, _I, returns=types.UniTuple(types.uint64, 2))
def fingerprint(values, starts, length, lo, hi, size, key_a, key_b):
    """Both 64-bit sums over elements of `size` bytes: 1, 2, 4 or 8."""
    a, b = _u64(0), _u64(0)
    at = lo
    while at < hi:
        run = at // length
        within = at - run * length
        n = min(length - within, hi - at)
        e = _u64(starts[run] + within)
        k, m, place = _u64(key_a) + _STRIDE_A * e, _u64(key_b) + _STRIDE_B * e, _pointer(values + at * size)
        if size == 4:
            p, q = hash_run(carray(place, (n,), np.uint32), k, m)
        elif size == 2:
            p, q = hash_run(carray(place, (n,), np.uint16), k, m)
        elif size == 8:
            p, q = hash_run(carray(place, (n,), np.uint64), k, m)
        else:
            p, q = hash_run(carray(place, (n,), np.uint8), k, m)
        a, b = a + p, b + q
        at += n
    return a, b
