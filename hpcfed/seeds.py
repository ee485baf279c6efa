"""Randomness by address. Every draw is named by a path and depends on nothing else: no state, no call order, no rank.

    derive(run_seed, "direction", t, i)    64-bit seed of the i-th direction of round t
    derive(run_seed, "batch", client, t)   64-bit seed of a client's batch in round t
    sample(seed, n, k)                     k distinct numbers of range(n)

Hashing is BLAKE2b, so the numbers are the same on every machine, Python and library version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator


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


def sample(seed: int, n: int, k: int) -> list[int]:
    """`k` distinct numbers of range(n), in random order (a sparse Fisher-Yates shuffle: O(k) memory and time)."""
    assert 0 <= k <= n
    words, moved, picked = _words(seed), {}, []  # type: ignore[var-annotated]
    for i in range(k):
        j = i + (next(words) * (n - i) >> 64)  # bias below n / 2**64
        picked.append(moved.get(j, j))
        moved[j] = moved.get(i, i)
    return picked


def coin(seed: int) -> int:
    """+1 or -1, fairly: how a tied tally is decided."""
    return 1 if derive(seed, "coin") & 1 else -1
