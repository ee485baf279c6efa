"""GPU kernels of noise spec v1, in Triton: the twin of spec.py on a device, equal to it bit for bit.

How     One program takes a tile: G groups of 128 elements of the full parameter, G 16 Philox blocks, held as a [G, 16]
        tensor (block 16 g + lane). A block's four words are eight half-words; half-word s of block (g, lane) belongs to
        element 128 g + 16 s + lane, slot s. So a tile is eight slots of one shape, and no word ever leaves its thread.
        A Rademacher bit of the same element is in block 16 (g / 16) + lane, word g % 16 / 4, bit 8 (g % 4) + s.
Legend  first, stride, length: run r holds `length` elements from first + r stride on, or first + starts[r] stride.
        tiles: programs a run.  key: uint64.  seed: int64 [1], its bits.  table: int32 [32768], bits of the quantiles.
        u: Philox words.
        Weights are pointers to their bits: int32 for float32 (KIND 0), int16 for bfloat16 (1) and float16 (2).
Promise multiply and add are never contracted if launched with enable_fp_fusion=False, as triton.py does; Triton keeps
        denormals. Roundings to bfloat16 are integer operations: Triton's interpreter, which the tests run, truncates.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language import constexpr, tensor

from .spec import LANES_OF_FINGERPRINT

FLOAT32, BFLOAT16 = constexpr(0), constexpr(1)
STRIDE_A, MUL_A1, MUL_A2 = (constexpr(x) for x in LANES_OF_FINGERPRINT[0])
STRIDE_B, MUL_B1, MUL_B2 = (constexpr(x) for x in LANES_OF_FINGERPRINT[1])
SLOTS = constexpr(8)

FIELDS = constexpr(8)  # of a parameter that move() takes: first program, address, key, address of starts, PLACES

# Arguments that Triton would otherwise specialise by value and alignment, and compile anew for every shape.
PLACES = ["first", "stride", "length", "tiles"]


@triton.jit
def place(program: tensor, starts: tensor, first: tensor, stride: tensor, length: tensor, tiles: tensor, T: constexpr,
          LISTED: constexpr, ALIGNED: constexpr) -> tensor:  # fmt: skip
    """The tile of a parameter's program, counted from 0; it starts at a multiple of T in the full parameter. (Its first
    element, the place of that in the local tensor, which of the tile's elements are in the run: from, to); the first
    two int64, the others int32."""
    tiles = tiles.to(tl.int64)
    length = length.to(tl.int64)
    run = program.to(tl.int64) // tiles
    start = tl.load(starts + run).to(tl.int64) * stride + first if LISTED else run * stride + first
    element = (start // T + program.to(tl.int64) % tiles) * T
    off = element - start
    local = run * length + off
    low = tl.maximum(-off, 0).to(tl.int32)
    high = tl.minimum(tl.maximum(length - off, 0), T).to(tl.int32)
    if ALIGNED:  # then a thread loads and stores many weights at a time
        local, low, high = tl.multiple_of(local, 16), tl.multiple_of(low, 16), tl.multiple_of(high, 16)
    return element, local, low, high


@triton.jit
def index_in(indices: tensor, G: constexpr) -> tensor:
    """16 g + lane: uint32 [G, 16].

    Loaded, though it could be computed: the compiler lays a chain of operations over threads as the load it starts
    from. Else the words are drawn in another layout than the weights have, and change it through shared memory.
    """
    at = tl.arange(0, G)[:, None] * 16 + tl.arange(0, 16)[None, :]
    return tl.load(indices + at).to(tl.uint32)


@triton.jit
def random_words(seed: tensor, key: tensor, element: tensor, index: tensor) -> tensor:
    """The blocks of a tile: (u0, u1, u2, u3), uint32 [G, 16]."""
    block = (element // 8).to(tl.uint64)  # 16 of them for 128 elements
    # The tile starts at a multiple of its size, so the sum never carries into the high word.
    low = (block & 0xFFFFFFFF).to(tl.uint32) + index
    return tl.philox(
        seed, low, (block >> 32).to(tl.uint32), (key & 0xFFFFFFFF).to(tl.uint32), (key >> 32).to(tl.uint32)
    )


@triton.jit
def sign_words(seed: tensor, key: tensor, element: tensor, index: tensor) -> tensor:
    """uint32 [G, 16] whose bits 0 to 7 are the signs of the tile's slots."""
    first = (element // 128).to(tl.uint64)  # group of 128; 16 of them share 16 blocks
    g = (first & 0xFFFFFFFF).to(tl.uint32) + (index >> 4)
    low = (g & 0xFFFFFFF0) + (index & 15)
    high = (first >> 32).to(tl.uint32)
    u0, u1, u2, u3 = tl.philox(seed, low, high, (key & 0xFFFFFFFF).to(tl.uint32), (key >> 32).to(tl.uint32))
    lower, upper = tl.where(g & 4 == 0, u0, u1), tl.where(g & 4 == 0, u2, u3)
    return tl.where(g & 8 == 0, lower, upper) >> ((g & 3) * 8)


@triton.jit
def draw(seed: tensor, key: tensor, element: tensor, index: tensor, GAUSSIAN: constexpr) -> tensor:
    """What z_of() takes: a tile's words, or four times its signs."""
    seed, key = seed.to(tl.uint64), key.to(tl.uint64)
    if GAUSSIAN:
        return random_words(seed, key, element, index)
    signs = sign_words(seed, key, element, index)
    return signs, signs, signs, signs


@triton.jit
def half_of(u0: tensor, u1: tensor, u2: tensor, u3: tensor, s: constexpr) -> tensor:
    """The 16 random bits of slot s: uint32 [G, 16]."""
    if s < 2:
        word = u0
    elif s < 4:
        word = u1
    elif s < 6:
        word = u2
    else:
        word = u3
    return word >> 16 if s % 2 == 1 else word & 0xFFFF


@triton.jit
def z_of(
    u0: tensor,
    u1: tensor,
    u2: tensor,
    u3: tensor,
    table: tensor,
    s: constexpr,
    GAUSSIAN: constexpr,
) -> tensor:
    """The direction at slot s: float32 [G, 16]."""
    if GAUSSIAN:
        half = half_of(u0, u1, u2, u3, s)
        size = tl.load(table + (half & 0x7FFF).to(tl.int32)).to(tl.uint32, bitcast=True)
        return (size | ((half & 0x8000) << 16)).to(tl.float32, bitcast=True)
    return (((u0 << (31 - s)) & 0x80000000) | 0x3F800000).to(tl.float32, bitcast=True)


# --- number formats -----------------------------------------------------------------------------------------------


@triton.jit
def widen(bits: tensor, KIND: constexpr) -> tensor:
    """float32 of the bits of a weight: int32 or int16."""
    if KIND == FLOAT32:
        return bits.to(tl.float32, bitcast=True)
    elif KIND == BFLOAT16:
        return (bits.to(tl.uint16, bitcast=True).to(tl.uint32) << 16).to(tl.float32, bitcast=True)
    else:
        return bits.to(tl.float16, bitcast=True).to(tl.float32)


@triton.jit
def narrow(x: tensor, KIND: constexpr) -> tensor:
    """Bits of float32 rounded to nearest even: int32 or int16. Every NaN becomes the one quiet positive NaN."""
    bits = x.to(tl.uint32, bitcast=True)
    if KIND == FLOAT32:
        return tl.where(x != x, 0x7FC00000, bits).to(tl.int32, bitcast=True)
    elif KIND == BFLOAT16:
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        return tl.where(x != x, 0x7FC0, rounded).to(tl.uint16).to(tl.int16, bitcast=True)
    else:
        rounded = x.to(tl.float16).to(tl.uint16, bitcast=True).to(tl.uint32)
        return tl.where(x != x, 0x7E00, rounded).to(tl.uint16).to(tl.int16, bitcast=True)


@triton.jit
def narrow_by(x: tensor, r: tensor, KIND: constexpr) -> tensor:
    """Bits of float32 rounded to a neighbour in bfloat16 or float16, by 16 random bits: int16. As spec.py says."""
    bits = x.to(tl.uint32, bitcast=True)
    if KIND == BFLOAT16:
        return tl.where(x != x, 0x7FC0, (bits + r) >> 16).to(tl.uint16).to(tl.int16, bitcast=True)
    size = bits & 0x7FFFFFFF
    normal = ((size + (r & 0x1FFF)) >> 13) - 0x1C000
    tiny = size < 0x38800000  # 2^-14
    small = tl.where(tiny, size, 0).to(tl.float32, bitcast=True)
    fixed = (small * 1099511627776.0).to(tl.int32).to(tl.uint32)  # 2^40; cut off below 2^-40
    magnitude = tl.minimum(tl.where(tiny, (fixed + r) >> 16, normal), 0x7C00)
    rounded = magnitude | ((bits >> 16) & 0x8000)
    return tl.where(x != x, 0x7E00, rounded).to(tl.uint16).to(tl.int16, bitcast=True)


# --- kernels ------------------------------------------------------------------------------------------------------


@triton.jit
def inside(low: tensor, high: tensor, s: constexpr, G: constexpr) -> tensor:
    """Slot s of a tile: where its elements are in the tile, and which of them are in the run."""
    at = tl.arange(0, G)[:, None] * 128 + (tl.arange(0, 16)[None, :] + s * 16)
    return at, (at >= low) & (at < high)


@triton.jit(do_not_specialize=[*PLACES, "seed", "key"])  # a seed may be anywhere in a longer tensor
def perturb(
    w: tensor, plus: tensor, minus: tensor,
    starts: tensor, first: tensor, stride: tensor, length: tensor, tiles: tensor,
    seed: tensor, key: tl.uint64, mu: tensor, table: tensor, indices: tensor,
    GAUSSIAN: constexpr, KIND: constexpr, G: constexpr, LISTED: constexpr, ALIGNED: constexpr, BOTH: constexpr,
) -> None:  # fmt: skip
    """plus <- w + mu z and, if BOTH, minus <- w - mu z, to nearest."""
    element, local, low, high = place(tl.program_id(0), starts, first, stride, length, tiles, G * 128, LISTED, ALIGNED)
    index = index_in(indices, G)
    u0, u1, u2, u3 = draw(tl.load(seed), key, element, index, GAUSSIAN)
    for s in tl.static_range(SLOTS):
        at, here = inside(low, high, s, G)
        x = widen(tl.load(w + local + at, mask=here, other=0), KIND)
        step = mu * z_of(u0, u1, u2, u3, table, s, GAUSSIAN)
        tl.store(plus + local + at, narrow(x + step, KIND), mask=here)
        if BOTH:
            tl.store(minus + local + at, narrow(x - step, KIND), mask=here)


@triton.jit
def held_at(w: tensor, low: tensor, high: tensor, s: constexpr, KIND: constexpr, G: constexpr) -> tensor:
    """Slot s of a tile as float32 [G, 16]."""
    at, here = inside(low, high, s, G)
    return widen(tl.load(w + at, mask=here, other=0), KIND)


@triton.jit
def moved(
    x: tensor, c: tensor, u0: tensor, u1: tensor, u2: tensor, u3: tensor,
    r0: tensor, r1: tensor, r2: tensor, r3: tensor, table: tensor,
    s: constexpr, GAUSSIAN: constexpr, STOCHASTIC: constexpr, KIND: constexpr, ONCE: constexpr,
) -> tensor:  # fmt: skip
    """x - c z at slot s, rounded to KIND unless ONCE; float32."""
    x = x - c * z_of(u0, u1, u2, u3, table, s, GAUSSIAN)
    if ONCE:
        return x
    elif STOCHASTIC:
        return widen(narrow_by(x, half_of(r0, r1, r2, r3, s), KIND), KIND)
    else:
        return widen(narrow(x, KIND), KIND)


@triton.jit
def put(
    w: tensor, x: tensor, r0: tensor, r1: tensor, r2: tensor, r3: tensor, low: tensor, high: tensor,
    s: constexpr, BY: constexpr, KIND: constexpr, G: constexpr,
) -> None:  # fmt: skip
    """Slot s of a tile <- x, to nearest or BY random bits."""
    at, here = inside(low, high, s, G)
    bits = narrow_by(x, half_of(r0, r1, r2, r3, s), KIND) if BY else narrow(x, KIND)
    tl.store(w + at, bits, mask=here)


@triton.jit
def row_of(program: tensor, params: tensor, rows: tensor) -> tensor:
    """The last row whose first program is not after this one, found by halving."""
    low, high = 0, rows
    while high - low > 1:
        middle = (low + high) // 2
        after = tl.load(params + middle * FIELDS) > program
        low, high = tl.where(after, low, middle), tl.where(after, middle, high)
    return params + low * FIELDS


@triton.jit(do_not_specialize=["rows", "n"])
def move(
    params: tensor, rows: tensor, steps: tensor, scales: tensor, n: tensor, table: tensor, indices: tensor,
    GAUSSIAN: constexpr, STOCHASTIC: constexpr, KIND: constexpr,
    ONCE: constexpr, G: constexpr, LISTED: constexpr, ALIGNED: constexpr,
) -> None:  # fmt: skip
    """w <- round(w - c z) for each step in turn, or rounded once after the last; w stays in registers meanwhile.

    params: int64 [rows, FIELDS], parameters by their first program; if ALIGNED, their addresses are multiples of 16.
    steps: int64 [n + 1, 2], a step's seed and the seed of its rounding bits (the last row: of ONCE's rounding).
    scales: float32 [n], c.
    """
    row = row_of(tl.program_id(0), params, rows)
    w = tl.load(row + 1).to(tl.pointer_type(tl.int32 if KIND == FLOAT32 else tl.int16))
    key, starts = tl.load(row + 2), tl.load(row + 3).to(tl.pointer_type(tl.int64))
    if ALIGNED:
        w = tl.multiple_of(w, 16)
    element, local, low, high = place(
        tl.program_id(0) - tl.load(row), starts, tl.load(row + 4), tl.load(row + 5), tl.load(row + 6), tl.load(row + 7),
        G * 128, LISTED, ALIGNED,
    )  # fmt: skip
    index = index_in(indices, G)
    w += local
    x0, x1 = held_at(w, low, high, 0, KIND, G), held_at(w, low, high, 1, KIND, G)
    x2, x3 = held_at(w, low, high, 2, KIND, G), held_at(w, low, high, 3, KIND, G)
    x4, x5 = held_at(w, low, high, 4, KIND, G), held_at(w, low, high, 5, KIND, G)
    x6, x7 = held_at(w, low, high, 6, KIND, G), held_at(w, low, high, 7, KIND, G)
    for i in range(n):
        c = tl.load(scales + i)
        u0, u1, u2, u3 = draw(tl.load(steps + 2 * i), key, element, index, GAUSSIAN)
        r0, r1, r2, r3 = u0, u1, u2, u3
        if STOCHASTIC and not ONCE:
            r0, r1, r2, r3 = draw(tl.load(steps + 2 * i + 1), key, element, index, True)
        x0 = moved(x0, c, u0, u1, u2, u3, r0, r1, r2, r3, table, 0, GAUSSIAN, STOCHASTIC, KIND, ONCE)
        x1 = moved(x1, c, u0, u1, u2, u3, r0, r1, r2, r3, table, 1, GAUSSIAN, STOCHASTIC, KIND, ONCE)
        x2 = moved(x2, c, u0, u1, u2, u3, r0, r1, r2, r3, table, 2, GAUSSIAN, STOCHASTIC, KIND, ONCE)
        x3 = moved(x3, c, u0, u1, u2, u3, r0, r1, r2, r3, table, 3, GAUSSIAN, STOCHASTIC, KIND, ONCE)
        x4 = moved(x4, c, u0, u1, u2, u3, r0, r1, r2, r3, table, 4, GAUSSIAN, STOCHASTIC, KIND, ONCE)
        x5 = moved(x5, c, u0, u1, u2, u3, r0, r1, r2, r3, table, 5, GAUSSIAN, STOCHASTIC, KIND, ONCE)
        x6 = moved(x6, c, u0, u1, u2, u3, r0, r1, r2, r3, table, 6, GAUSSIAN, STOCHASTIC, KIND, ONCE)
        x7 = moved(x7, c, u0, u1, u2, u3, r0, r1, r2, r3, table, 7, GAUSSIAN, STOCHASTIC, KIND, ONCE)
    BY: constexpr = STOCHASTIC and ONCE
    r0, r1, r2, r3 = x0, x0, x0, x0  # read only if BY
    if BY:
        r0, r1, r2, r3 = draw(tl.load(steps + 2 * n + 1), key, element, index, True)
    put(w, x0, r0, r1, r2, r3, low, high, 0, BY, KIND, G)
    put(w, x1, r0, r1, r2, r3, low, high, 1, BY, KIND, G)
    put(w, x2, r0, r1, r2, r3, low, high, 2, BY, KIND, G)
    put(w, x3, r0, r1, r2, r3, low, high, 3, BY, KIND, G)
    put(w, x4, r0, r1, r2, r3, low, high, 4, BY, KIND, G)
    put(w, x5, r0, r1, r2, r3, low, high, 5, BY, KIND, G)
    put(w, x6, r0, r1, r2, r3, low, high, 6, BY, KIND, G)
    put(w, x7, r0, r1, r2, r3, low, high, 7, BY, KIND, G)


@triton.jit(do_not_specialize=[*PLACES, "key_a", "key_b"])
def fingerprint(
    values: tensor, sums: tensor, starts: tensor, first: tensor, stride: tensor, length: tensor, tiles: tensor,
    key_a: tl.uint64, key_b: tl.uint64, SIZE: constexpr, T: constexpr, LISTED: constexpr, ALIGNED: constexpr,
) -> None:  # fmt: skip
    """sums[program] <- both 64-bit sums over its tile; values: integers of SIZE bytes; sums: int64 [programs, 2]."""
    program = tl.program_id(0)
    element, local, low, high = place(program, starts, first, stride, length, tiles, T, LISTED, ALIGNED)
    at = tl.arange(0, T)
    here = (at >= low) & (at < high)
    raw = tl.load(values + local + at, mask=here, other=0)
    if SIZE == 1:
        v = raw.to(tl.uint8, bitcast=True).to(tl.uint64)
    elif SIZE == 2:
        v = raw.to(tl.uint16, bitcast=True).to(tl.uint64)
    elif SIZE == 4:
        v = raw.to(tl.uint32, bitcast=True).to(tl.uint64)
    else:
        v = raw.to(tl.uint64, bitcast=True)
    e = element.to(tl.uint64) + at.to(tl.uint64)
    x = v ^ (key_a.to(tl.uint64) + e * STRIDE_A)
    x = (x ^ (x >> 32)) * MUL_A1
    x = (x ^ (x >> 29)) * MUL_A2
    y = v ^ (key_b.to(tl.uint64) + e * STRIDE_B)
    y = (y ^ (y >> 32)) * MUL_B1
    y = (y ^ (y >> 29)) * MUL_B2
    a = tl.where(here, x ^ (x >> 32), 0).to(tl.int64, bitcast=True)
    b = tl.where(here, y ^ (y >> 32), 0).to(tl.int64, bitcast=True)
    tl.store(sums + program * 2, tl.sum(a, 0))
    tl.store(sums + program * 2 + 1, tl.sum(b, 0))
