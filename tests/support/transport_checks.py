"""What every transport must do, whatever carries it: bodies that run on 1, 2 and 3 ranks under any launcher."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from hpcfed.errors import ConfigError, DivergedError, TransportError
from hpcfed.messages import Ballots
from hpcfed.transport import base
from hpcfed.transport.base import Transport, agree, check_same


def split(voters: int, rows: int) -> list[int]:
    """Voters per row, front rows first; later rows may host nobody."""
    return [voters // rows + (row < voters % rows) for row in range(rows)]


def mine(transport: Transport, votes: np.ndarray, hosted: list[int]) -> Ballots:
    first = sum(hosted[: transport.row.index])
    return Ballots(
        range(first, first + hosted[transport.row.index]), votes[first : first + hosted[transport.row.index]]
    )


@contextmanager
def chunks(size: int) -> Iterator[None]:
    """Messages of `size` bytes."""
    before, base.CHUNK = base.CHUNK, size
    try:
        yield
    finally:
        base.CHUNK = before


@contextmanager
def listening(transport: Any) -> Iterator[list[Any]]:
    """What reaches this row, by whichever operation, until the end of the block; lists, or None."""
    heard: list[Any] = []
    names = ("_sum", "_gather", "_to_root", "_broadcast")

    def wrapped(operation: Any) -> Any:
        def listen(vector: np.ndarray, *args: Any) -> Any:
            result = operation(vector, *args)
            heard.append(None if result is None else result.tolist())
            heard.append(vector.tolist())  # some operations overwrite it
            return result

        return listen

    for name in names:
        setattr(transport, name, wrapped(getattr(transport, name)))
    try:
        yield heard
    finally:
        for name in names:
            delattr(transport, name)


def check_sums(transport: Transport) -> None:
    rows, row = transport.rows, transport.row.index
    for dtype in (np.int8, np.int32, np.int64):
        vector = np.array([1, -2, row], dtype)
        transport.sum_in_place(vector)
        assert vector.dtype == dtype and vector.tolist() == [rows, -2 * rows, rows * (rows - 1) // 2]
    wrapped = np.array([100], np.int8)
    transport.sum_in_place(wrapped)
    assert wrapped.tolist() == np.array([100 * rows]).astype(np.int8).tolist()


def check_tallies(transport: Transport) -> None:
    rng = np.random.default_rng(0)
    for voters in (1, 2, 5, 126, 127, 128, 1000):
        for q in (1, 3, 9):
            votes = rng.integers(-1, 2, (voters, q)).astype(np.int8)
            votes[:, 0] = 1  # all agree: the sum that would overflow first
            hosted = split(voters, transport.rows)
            for form in ("sum", "bits"):
                tally = transport.tally(
                    mine(transport, votes, hosted), voters, hosted, form, stop=transport.row.index == 0
                )
                assert tally.sums.tolist() == votes.sum(0, dtype=int).tolist()
                assert tally.cast.tolist() == (votes != 0).sum(0).tolist()
                assert tally.sums.dtype == tally.cast.dtype == np.int32
                assert (tally.voters, tally.stop) == (voters, 1)
                lane = 1 if voters <= 127 else 4
                size = (2 * q + 1) * lane if form == "sum" else 2 * -(-hosted[0] * q // 8) + 1
                sent = (0, 0) if transport.rows == 1 else (1, size)
                assert (tally.collectives, tally.payload_bytes) == sent


def check_nobody_votes(transport: Transport) -> None:
    hosted = split(3, transport.rows)
    tally = transport.tally(mine(transport, np.zeros((3, 2), np.int8), hosted), 3, hosted)
    assert tally.sums.tolist() == tally.cast.tolist() == [0, 0] and tally.stop == 0


def check_stuffing(transport: Transport) -> None:
    rows = transport.rows
    votes = np.ones((3 * rows, 2), np.int8)
    votes[-1, 1] = 100  # the last row's client
    hosted = split(3 * rows, rows)
    ballots = mine(transport, votes, hosted)
    with pytest.raises(TransportError, match=r"direction 1: \d+ votes that sum to \d+ cannot .* stuffed"):
        transport.tally(ballots, 3 * rows, hosted)
    assert transport.tally(ballots, 3 * rows, hosted, "bits").sums.tolist() == [3 * rows] * 2


def check_sums_in_place(transport: Transport) -> None:
    with chunks(1000):  # 125 numbers
        for n in (0, 1, 124, 125, 126, 250, 1001):
            parts = [np.random.default_rng([n, row]).integers(-(2**60), 2**60, n) for row in range(transport.rows)]
            vector = parts[transport.row.index].copy()
            operations = transport.sum_in_place(vector)
            assert operations == (-(-n // 125) if transport.rows > 1 else 0)
            assert vector.tolist() == [sum(int(x) for x in numbers) for numbers in zip(*parts, strict=True)]


STRANGE = [0x7FC00001, 0xFFC00000, 0x7F800001, 0x80000000, 0x7F800000, 0x00000001]  # NaNs, -0.0, inf, a subnormal


def check_reports(transport: Transport) -> None:
    """Against the list of all clients' bits, which every row can draw."""
    rows, row = transport.rows, transport.row.index
    for s in (1, 7):
        for hosted in (split(5, rows), split(5, rows)[::-1], [0] * (rows - 1) + [3], [9] + [0] * (rows - 1)):
            k = sum(hosted)
            bits = np.random.default_rng([k, s]).integers(0, 2**32, (k, s), np.uint32)
            bits[:, 0] = np.resize(STRANGE, k)
            first = sum(hosted[:row])
            sizes = np.arange(k) + 10
            size = 4 * s * max(hosted) + 1
            for chunk in (base.CHUNK, 16, size - 1, size):
                with chunks(chunk):
                    mine = bits[first : first + hosted[row]].view(np.float32)
                    reports = transport.collect(mine, sizes, hosted, stop=row == rows - 1)
                assert reports.values.dtype == np.float32 and reports.values.shape == (k, s)
                assert reports.values.view(np.uint32).tolist() == bits.tolist()
                assert reports.sizes.tolist() == sizes.tolist() and reports.stop == 1
                sent = (size, -(-size // chunk)) if rows > 1 else (0, 0)
                assert (reports.payload_bytes, reports.collectives) == sent


def check_privacy(transport: Transport) -> None:
    """Row 0 decides on the true sums; what reaches the others does not depend on them."""
    rows, row = transport.rows, transport.row.index
    rng = np.random.default_rng(1)
    for voters in (1, 5, 127, 128, 300):
        for q in (1, 9):
            votes = rng.integers(-1, 2, (voters, q)).astype(np.int8)
            votes[0, 0] = 1
            signs = rng.choice(np.array([-1, 1], np.int8), q)
            hosted = split(voters, rows)
            seen: list[list[int]] = []

            def decide(sums: np.ndarray, seen: list[list[int]] = seen, signs: np.ndarray = signs) -> np.ndarray:
                seen.append(sums.tolist())
                return signs

            ballots = mine(transport, votes, hosted)
            with listening(transport) as heard:
                tally = transport.private_tally(ballots, voters, hosted, decide, stop=row != 0)
            assert seen == ([votes.sum(0, dtype=int).tolist()] if row == 0 else [])
            own = base.encode_sum(ballots.votes, row != 0, max(voters, rows))
            if row > 0:
                assert heard == [None, own.tolist(), None, [*signs, 0, rows - 1]]
            assert tally.sums.tolist() == signs.tolist() and tally.cast.tolist() == [1] * q
            assert tally.sums.dtype == tally.cast.dtype == np.int32
            assert (tally.voters, tally.stop) == (voters, rows - 1)
            size = (3 * q + 3) * (1 if voters <= 127 else 4)
            assert (tally.payload_bytes, tally.collectives) == ((size, 2) if rows > 1 else (0, 0))


def check_privacy_of_abstainers(transport: Transport) -> None:
    voters = 3 * transport.rows
    hosted = [3] * transport.rows
    votes = np.zeros((voters, 2), np.int8)

    def decide(sums: np.ndarray) -> np.ndarray:
        assert sums.tolist() == [0, 0]  # nobody voted: still a draw, for that nobody did would tell each one's vote
        return np.array([1, -1], np.int8)

    tally = transport.private_tally(mine(transport, votes, hosted), voters, hosted, decide, stop=True)
    assert tally.sums.tolist() == [1, -1] and tally.cast.tolist() == [1, 1] and tally.stop == transport.rows
    votes[-1, 1] = 100
    with pytest.raises(TransportError, match=f"cannot come from {voters} voters .* stuffed") as caught:
        transport.private_tally(mine(transport, votes, hosted), voters, hosted, decide)
    assert transport.is_everywhere(caught.value)
    assert "100" not in str(caught.value) and "direction" not in str(caught.value)


def check_bytes(transport: Transport) -> None:
    rows, row = transport.rows, transport.row.index
    with chunks(1000):  # several messages
        for size in (0, 1, 999, 1000, 3001):
            sent = [bytes([i + 1]) * (size + i) for i in range(rows)]
            assert transport.all_gather(sent[row]) == sent
            for root in range(rows):
                assert transport.broadcast(sent[root] if row == root else None, root) == sent[root]
    assert transport.all_gather(b"last" if row == rows - 1 else b"") == [b""] * (rows - 1) + [b"last"]
    transport.barrier()


def check_agreement(transport: Transport) -> None:
    rows, row = transport.rows, transport.row.index
    agree(transport, None)
    with pytest.raises(ConfigError) as caught:
        agree(transport, "no such file: a.csv")
    assert str(caught.value) == "no such file: a.csv" and transport.is_everywhere(caught.value)
    with pytest.raises(ConfigError) as caught:
        agree(transport, f"disk {row} is full")
    assert all(f"disk {i} is full" in str(caught.value) for i in range(rows))
    check_same(transport, "the recipe", "abc")
    check_same(transport, "the fingerprint", b"\x01\xff")
    if rows > 1:
        with pytest.raises(ConfigError, match=f"^row {rows - 1}: no data$"):
            agree(transport, "no data" if row == rows - 1 else None)
        with pytest.raises(DivergedError, match=f"^the fingerprint differs .*row {rows - 1}: ff"):
            check_same(transport, "the fingerprint", b"\xff" if row == rows - 1 else b"\x00", DivergedError)


CHECKS = (
    check_sums,
    check_sums_in_place,
    check_tallies,
    check_nobody_votes,
    check_stuffing,
    check_reports,
    check_privacy,
    check_privacy_of_abstainers,
    check_bytes,
    check_agreement,
)


def everything(transport: Transport) -> list[object]:
    """All checks on one launch; errors that all rows raise alike leave the transport usable for the next."""
    for check in CHECKS:
        check(transport)
    return [transport.name, transport.row.index, transport.rows]


def die(transport: Transport, how: str, who: int, busy: bool = False) -> None:
    """Row `who` raises, or is killed, after some rounds; the others vote on, or are busy with something long."""
    ballots, hosted = Ballots([0], np.ones((1, 1), np.int8)), [1] * transport.rows
    for t in range(10**9):
        transport.tally(ballots, transport.rows, hosted)
        if t == 5 and transport.row.index == who:
            if how == "raise":
                raise ValueError(f"boom in row {who}")
            os.kill(os.getpid(), signal.SIGKILL)
        if t == 5 and busy:
            time.sleep(600)
        transport.private_tally(ballots, transport.rows, hosted, lambda sums: np.sign(sums).astype(np.int8))


def disagree(transport: Transport) -> None:
    """Ends in an error that all rows raise alike."""
    check_same(transport, "the recipe", f"recipe {transport.row.index}")


PHOENIX = """
import os, signal, sys
from hpcfed.transport.launch import discover
from hpcfed.transport.choose import choose
from hpcfed.transport.guard import guard
launch = discover()
transport = choose(launch)
with guard(transport):
    transport.barrier()
    if launch.restart == 0 and launch.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    transport.barrier()
    print(f"risen {transport.all_gather(bytes([launch.rank]))}")
    transport.close()
"""
STUMBLER = """
import sys
from hpcfed.transport.launch import discover
from hpcfed.transport.choose import choose
from hpcfed.transport.guard import guard
launch = discover()
with guard(launch):
    if launch.rank == int(sys.argv[1]):
        raise ValueError("boom before the start")
    choose(launch).close()
"""
