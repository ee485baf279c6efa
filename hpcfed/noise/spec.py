"""Noise spec v1 in NumPy: slow, readable, and the arbiter. Every kernel must equal it bit for bit.

Generator    Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011)
             key      = seed (low word, high word)
             counter  = block (low, high), name key (low, high)
Elements     e is the 64-bit index of an element in the full, unsharded parameter. 16 neighbouring lanes are 16 blocks:
             gaussian, rounding bits   group g = e // 128,  lane = e % 16, slot = e % 128 // 16 (0..7)
                                       block 16 g + lane, word slot // 2, low half if slot is even: 16 bits
             rademacher                group g = e // 2048, lane = e % 16, slot = e % 2048 // 16 (0..127)
                                       block 16 g + lane, word slot // 32, bit slot % 32
Values       gaussian: bit 15 is the sign (1: minus), bits 0..14 index the quantile table (tools/make_normal_table.py)
             rademacher: bit 0 is +1, bit 1 is -1
Arithmetic   float32 multiply, add and subtract, each rounded to nearest even on its own (no fused multiply-add), and
             integers; no library function. So a CPU, a GPU and NumPy agree to the bit, denormals included (flushing
             them, torch.set_flush_denormal(True), breaks that). Every NaN is written as one quiet positive NaN.

Legend       seed, key: 64-bit integers. elements: uint64 [n]. z: float32 [n]. bits16: uint16 [n].
             kind: "float32", "bfloat16" or "float16"; bfloat16 is held as uint16 bits, since NumPy has no such type.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from ..seeds import name_key
from .layout import Piece

TABLE_FILE = Path(__file__).with_name("normal_v1.bin")
TABLE_SHA256 = "b9dce14e40822840f979a17148ab8485cdeb06f5f0727fcbccc8c8515f740da0"
DISTRIBUTIONS = ("gaussian", "rademacher")
ROUNDINGS = ("nearest", "stochastic")
KINDS = ("float32", "bfloat16", "float16")

MASK = 2**64 - 1
ROUNDING_STREAM = 0xA0761D6478BD642F  # parts the rounding bits of a seed from the directions of all seeds
LANES_OF_FINGERPRINT = (  # per 64-bit lane: index stride, first and second multiplier (all odd)
    (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB),
    (0xD6E8FEB86659FD93, 0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53),
)


@cache
def normal_table() -> np.ndarray:
    """The 32,768 positive values of the normal, float32, ascending; the file's sha256 is checked."""
    raw = TABLE_FILE.read_bytes()
    assert hashlib.sha256(raw).hexdigest() == TABLE_SHA256, f"{TABLE_FILE} is damaged"
    return np.frombuffer(raw, "<f4").astype(np.float32)


# --- integers -----------------------------------------------------------------------------------------------------


def mix64(x: int) -> int:
    """The finaliser of splitmix64 (Steele, Lea, Flood 2014): a bijection of 64-bit integers."""
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & MASK
    return x ^ x >> 31


def philox(counter: np.ndarray, key: Sequence[int]) -> np.ndarray:
    """Philox4x32-10. counter: uint32 [n, 4], key: two 32-bit words. Returns uint32 [n, 4]."""
    c0, c1, c2, c3 = (counter[:, i].astype(np.uint64) for i in range(4))
    k0, k1 = (int(k) for k in key)
    low, high = np.uint64(0xFFFFFFFF), np.uint64(32)
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = p1 >> high ^ c1 ^ np.uint64(k0), p1 & low, p0 >> high ^ c3 ^ np.uint64(k1), p0 & low
        k0, k1 = k0 + 0x9E3779B9 & 0xFFFFFFFF, k1 + 0xBB67AE85 & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=1).astype(np.uint32)


def words(seed: int, key: int, blocks: np.ndarray) -> np.ndarray:
    """The four words of some blocks. blocks: uint64 [n]. Returns uint32 [n, 4]."""
    counter = np.empty((len(blocks), 4), np.uint32)
    counter[:, 0] = blocks & np.uint64(0xFFFFFFFF)
    counter[:, 1] = blocks >> np.uint64(32)
    counter[:, 2:] = key & 0xFFFFFFFF, key >> 32
    return philox(counter, (seed & 0xFFFFFFFF, seed >> 32))


def bits16(seed: int, key: int, elements: np.ndarray) -> np.ndarray:
    """The 16 random bits of each element: uint16 [n]."""
    e = elements.astype(np.uint64)
    slot = e % np.uint64(128) // np.uint64(16)
    four = words(seed, key, e // np.uint64(128) * np.uint64(16) + e % np.uint64(16))
    word = four[np.arange(len(e)), slot // np.uint64(2)]
    return (word >> (np.uint32(16) * (slot % np.uint64(2)).astype(np.uint32))).astype(np.uint16)


def bits1(seed: int, key: int, elements: np.ndarray) -> np.ndarray:
    """The random bit of each element: uint32 [n] of 0 and 1."""
    e = elements.astype(np.uint64)
    slot = e % np.uint64(2048) // np.uint64(16)
    four = words(seed, key, e // np.uint64(2048) * np.uint64(16) + e % np.uint64(16))
    word = four[np.arange(len(e)), slot // np.uint64(32)]
    return word >> (slot % np.uint64(32)).astype(np.uint32) & np.uint32(1)


# --- directions ---------------------------------------------------------------------------------------------------


def z(seed: int, key: int, elements: np.ndarray, distribution: str) -> np.ndarray:
    """The direction `seed` of the parameter `key` at some elements: float32 [n]."""
    if distribution == "rademacher":
        return np.where(bits1(seed, key, elements) == 0, np.float32(1), np.float32(-1))
    assert distribution == "gaussian"
    r = bits16(seed, key, elements)
    value = normal_table()[r & np.uint16(0x7FFF)]
    return np.where(r >> np.uint16(15) == 0, value, -value)


def elements_of(piece: Piece) -> np.ndarray:
    """The indices, in the full parameter, of the elements of a piece: uint64 [piece.numel]."""
    return (np.asarray(piece.starts)[:, None] + np.arange(piece.length)[None, :]).reshape(-1).astype(np.uint64)


# --- number formats -----------------------------------------------------------------------------------------------


def widen(w: np.ndarray, kind: str) -> np.ndarray:
    """float32 values of an array of `kind`."""
    if kind == "bfloat16":
        return (w.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return w.astype(np.float32)


def narrow(x: np.ndarray, kind: str) -> np.ndarray:
    """float32 to `kind`, to nearest even; a finite value past the largest may become infinite, as IEEE says."""
    nan = np.isnan(x)
    if kind == "float32":
        return np.where(nan, np.float32(np.nan), x)
    if kind == "float16":
        with np.errstate(over="ignore"):
            return np.where(nan, np.float16(np.nan), x.astype(np.float16))
    bits = x.view(np.uint32)
    even = bits >> np.uint32(16) & np.uint32(1)
    return np.where(nan, np.uint16(0x7FC0), (bits + np.uint32(0x7FFF) + even >> np.uint32(16)).astype(np.uint16))


def narrow_stochastic(x: np.ndarray, kind: str, random: np.ndarray) -> np.ndarray:
    """float32 to `kind`, up or down with the probability that keeps the mean; random: uint16 [n].

    bfloat16: the 16 bits are added to the 16 that will be dropped. float16: 13 of them to the 13 that will be dropped;
    below 2^-14, where float16 is a fixed-point format, floor(|x| 2^24 + random / 2^16). Values that the format holds
    stay. Past the largest finite value the next one up is infinity, as in rounding to nearest: |x| in (65504, 65536)
    becomes 65504 or infinite. float32 has nothing to round.
    """
    if kind == "float32":
        return narrow(x, kind)
    bits, r = x.view(np.uint32), random.astype(np.uint32)
    size, sign = bits & np.uint32(0x7FFFFFFF), bits >> np.uint32(31)
    nan = size > np.uint32(0x7F800000)
    if kind == "bfloat16":  # infinity stays: r is less than the last bit kept
        return np.where(nan, np.uint16(0x7FC0), (bits + r >> np.uint32(16)).astype(np.uint16))
    assert kind == "float16"
    normal = (size + (r & np.uint32(0x1FFF)) >> np.uint32(13)).astype(np.int64) - (112 << 10)
    tiny = size < np.uint32(113 << 23)
    # |x| 2^40 < 2^26: the scaling by a power of two is exact; what is below one unit of 2^-40 is cut off.
    fixed = (np.where(tiny, np.abs(x), np.float32(0)) * np.float32(2.0**40)).astype(np.int64)
    magnitude = np.minimum(np.where(tiny, fixed + r >> 16, normal), 0x7C00)
    half = np.where(nan, 0x7E00, magnitude | sign.astype(np.int64) << 15)
    return half.astype(np.uint16).view(np.float16)


# --- what the engine does -----------------------------------------------------------------------------------------


def fill(seed: int, piece: Piece, distribution: str, kind: str) -> np.ndarray:
    """z of a piece, rounded to `kind`: [piece.numel]."""
    return narrow(z(seed, piece.key, elements_of(piece), distribution), kind)


def perturb(w: np.ndarray, seed: int, mu: float, piece: Piece, distribution: str, kind: str) -> tuple[np.ndarray, ...]:
    """w + mu z and w - mu z, both of `kind`, from one draw. w: [piece.numel] of `kind`."""
    with np.errstate(all="ignore"):
        step = np.float32(mu) * z(seed, piece.key, elements_of(piece), distribution)
        return narrow(widen(w, kind) + step, kind), narrow(widen(w, kind) - step, kind)


def move(
    w: np.ndarray,
    seeds: np.ndarray,
    coefficients: np.ndarray,
    piece: Piece,
    distribution: str,
    rounding: str,
    kind: str,
) -> np.ndarray:
    """w <- round(w - c z) for each (seed, c) in turn. coefficients: float32 [n]. Returns a new array of `kind`."""
    elements = elements_of(piece)
    for seed, c in zip(map(int, seeds), np.asarray(coefficients, np.float32), strict=True):
        with np.errstate(all="ignore"):
            x = widen(w, kind) - c * z(seed, piece.key, elements, distribution)
        w = _round(x, seed, piece.key, elements, rounding, kind)
    return w


def move_once(
    w: np.ndarray,
    seeds: np.ndarray,
    coefficients: np.ndarray,
    piece: Piece,
    distribution: str,
    rounding: str,
    kind: str,
) -> np.ndarray:
    """w <- round(w - c_1 z_1 - c_2 z_2 - ...), from the left, every product and difference rounded to float32.

    The one rounding to `kind` is the last; if stochastic, by the rounding bits of the last seed of the list, whatever
    its c. A step with c = 0 or -0 is no step: it would turn some -0 to +0 and change nothing else. If no step is left,
    w is returned as it is, NaNs and all. Returns an array of `kind`.
    """
    elements, c = elements_of(piece), np.asarray(coefficients, np.float32)
    if not c.any():
        return w
    x = widen(w, kind)
    for i in np.flatnonzero(c):
        with np.errstate(all="ignore"):
            x = x - c[i] * z(int(seeds[i]), piece.key, elements, distribution)
    return _round(x, int(seeds[-1]), piece.key, elements, rounding, kind)


def _round(x: np.ndarray, seed: int, key: int, elements: np.ndarray, rounding: str, kind: str) -> np.ndarray:
    """float32 to `kind`, if stochastic by the rounding bits of `seed`."""
    if rounding == "stochastic":
        return narrow_stochastic(x, kind, bits16(mix64(seed ^ ROUNDING_STREAM), key, elements))
    return narrow(x, kind)


def fingerprint(raw: np.ndarray, dtype: str, piece: Piece) -> int:
    """128-bit fingerprint of values at their elements. raw: the values' bits, unsigned [piece.numel].

    Two sums mod 2^64, one a lane (the low 64 bits are lane 0), over the elements e, of
        mix(bits ^ (key + stride e)),  mix(x) = y ^ y >> 32, y = m2 (x' ^ x' >> 29), x' = m1 (x ^ x >> 32)
    with a key made of the parameter's name and the dtype's. Sums of disjoint pieces add up lane by lane.
    """
    total, e = 0, elements_of(piece)
    for lane, (stride, m1, m2) in enumerate(LANES_OF_FINGERPRINT):
        key = fingerprint_key(piece.key, dtype, lane)
        x = raw.astype(np.uint64) ^ (np.uint64(key) + np.uint64(stride) * e)
        x = (x ^ x >> np.uint64(32)) * np.uint64(m1)
        x = (x ^ x >> np.uint64(29)) * np.uint64(m2)
        total |= int(np.sum(x ^ x >> np.uint64(32), dtype=np.uint64)) << 64 * lane
    return total


def fingerprint_key(key: int, dtype: str, lane: int) -> int:
    """64-bit start of a fingerprint lane for one parameter held as `dtype` ("float32", "int64", ...)."""
    return mix64(mix64(key + lane & MASK) ^ name_key(dtype))


def add_fingerprints(*prints: int) -> int:
    """The fingerprint of the union of disjoint pieces: both 64-bit lanes are added mod 2^64; 0 for none."""
    low = sum(p & MASK for p in prints) & MASK
    return (sum(p >> 64 for p in prints) & MASK) << 64 | low
