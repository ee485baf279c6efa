"""CPU kernel of the fingerprint: the fast twin of spec.fingerprint, at memory speed for 4-byte values.

Legend  values: an address.  [lo, hi): the local elements of this call.  key_a, key_b: of the two lanes, at element 0.
"""

from __future__ import annotations

import numpy as np
from numba import carray, types

from .jit import I64, STARTS, Array, jit, kernel, pointer
from .spec import LANES_OF_FINGERPRINT

_u64 = np.uint64
_STRIDE_A, _MUL_A1, _MUL_A2 = (_u64(x) for x in LANES_OF_FINGERPRINT[0])
_STRIDE_B, _MUL_B1, _MUL_B2 = (_u64(x) for x in LANES_OF_FINGERPRINT[1])


@jit
def hash_run(values: Array, key_a: np.uint64, key_b: np.uint64) -> tuple[np.uint64, np.uint64]:
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


@kernel(I64, STARTS, I64, I64, I64, I64, I64, I64, returns=types.UniTuple(types.uint64, 2))
def fingerprint(
    values: int, starts: Array, length: int, lo: int, hi: int, size: int, key_a: int, key_b: int
) -> tuple[np.uint64, np.uint64]:
    """Both 64-bit sums over elements of `size` bytes: 1, 2, 4 or 8."""
    a, b = _u64(0), _u64(0)
    at = lo
    while at < hi:
        run = at // length
        within = at - run * length
        n = min(length - within, hi - at)
        e = _u64(starts[run] + within)
        k, m, place = _u64(key_a) + _STRIDE_A * e, _u64(key_b) + _STRIDE_B * e, pointer(values + at * size)
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
