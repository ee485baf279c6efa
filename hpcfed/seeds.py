"""Randomness by address. Every draw is named by a path and depends on nothing else: no state, no call order, no rank.

    derive(run_seed, "direction", t, i)    64-bit seed of the i-th direction of round t
    derive(run_seed, "batch", client, t)   64-bit seed of a client's batch in round t
    sample(seed, n, k)                     k distinct numbers of range(n); shuffled(seed, n): all of them
    uniform(seed), normal(seed)            a draw from (0, 1), from N(0, 1)

Hashing is BLAKE2b, so the numbers are the same on every machine, Python and library version. `normal` alone goes
through the C library's log, so its last bit may differ between machines: it simulates faults, it makes no direction.
"""

from __future__ import annotations

import hashlib
import itertools
from array import array
from collections.abc import Iterator
from statistics import NormalDist

_NORMAL = NormalDist()


def derive(root: int, *path: str | int) -> int:
    """64-bit seed for one purpose; `root` is any 64-bit seed, parts of `path` are strings or integers."""
    h = hashlib.blake2b((root & (2**64 - 1)).to_bytes(8, "little"), digest_size=8)
    for part in path:
        assert type(part) in (int, str), part  # numpy's integers would hash otherwise than Python's
        # type and length prefixed: ("ab", "c") is not ("a", "bc"), 1 is not "1"
        raw = f"{type(part).__name__}:{part}".encode()
        h.update(len(raw).to_bytes(4, "little") + raw)
    return int.from_bytes(h.digest(), "little")


def name_key(name: str) -> int:
    """64-bit hash of a parameter's name: the upper half of the Philox counter (noise spec v1)."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def _words(seed: int) -> Iterator[int]:
    """An endless stream of 64-bit words belonging to `seed`."""
    block = 0
    while True:
        raw = hashlib.blake2b(block.to_bytes(8, "little"), key=seed.to_bytes(8, "little"), digest_size=64).digest()
        for i in range(0, 64, 8):
            yield int.from_bytes(raw[i : i + 8], "little")
        block += 1


def words(seed: int, n: int) -> list[int]:
    """The first n of the 64-bit words belonging to `seed`."""
    return list(itertools.islice(_words(seed), n))


def sample(seed: int, n: int, k: int) -> list[int]:
    """`k` distinct numbers of range(n), in random order (a sparse Fisher-Yates shuffle: O(k) memory and time)."""
    assert 0 <= k <= n
    words, moved, picked = _words(seed), {}, []  # type: ignore[var-annotated]
    for i in range(k):
        j = i + (next(words) * (n - i) >> 64)  # bias below n / 2**64
        picked.append(moved.get(j, j))
        moved[j] = moved.get(i, i)
    return picked


def shuffled(seed: int, n: int) -> array[int]:
    """sample(seed, n, n) in 8 bytes a number, where that takes some 150 on the way."""
    words, order = _words(seed), array("q", range(n))
    for i in range(n):
        j = i + (next(words) * (n - i) >> 64)
        order[i], order[j] = order[j], order[i]
    return order


def coin(seed: int) -> int:
    """+1 or -1, fairly: how a tied tally is decided."""
    return 1 if derive(seed, "coin") & 1 else -1


def uniform(seed: int) -> float:
    """Uniform in the open interval (0, 1): an odd multiple of 2**-53, exactly; u and 1 - u are equally likely."""
    # odd: 0 has no normal quantile; and (k + 0.5) / 2**53 instead would round to 1 for the largest k
    return (derive(seed, "uniform") >> 11 | 1) * 2.0**-53


def normal(seed: int) -> float:
    """A standard normal draw: the quantile of uniform(seed), within +-8.21."""
    return _NORMAL.inv_cdf(uniform(seed))
