"""The client axis: how votes of all rows become one tally. Nothing else travels here but agreement and metrics.

A row's collectives are four: sum, gather, broadcast, barrier. solo.py, torchdist.py and mpi.py implement them; all that
is said of votes stands in this file, once. A round costs one collective in either form:

    sum    [sums | cast | stop] as integers, summed over rows. cast: votes that were not abstentions
    bits   a sign bit and an abstention bit a client and direction, gathered and recounted by every row

Promise: both forms give the same tally, and integers that cannot overflow. After a sum |sum| <= cast <= voters and
sum = cast (mod 2) are checked; that catches an impossible total, not a lie within those bounds. In the bits form
a client has one vote whatever its row sends.
"""

from __future__ import annotations

import contextlib
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, NoReturn, TypeVar

import numpy as np

from ..errors import ConfigError, HpcfedError, TransportError
from ..messages import Ballots, Tally

E = TypeVar("E", bound=HpcfedError)
CHUNK = 1 << 26  # bytes a message: far below the 2**31 elements that MPI counts in an int


class PeerLostError(TransportError):
    """Another row is gone. Secondary: that row, or its launcher, has said why."""


class Transport(ABC):
    """One row's end of the client axis.  name: for people.  rank: of the launch.  row, rows: on the client axis.

    Every method but abort is collective: all rows call it, in the same order. A row that dies makes the others'
    next collective raise PeerLostError.
    """

    name: str
    rank: int
    row: int
    rows: int
    _common: HpcfedError | None = None

    @abstractmethod
    def _sum(self, vector: np.ndarray) -> np.ndarray:
        """New array: sum over rows of a contiguous int8, int32 or int64 vector."""

    @abstractmethod
    def _gather(self, vector: np.ndarray) -> np.ndarray:
        """[rows, n] of a contiguous uint8 or int64 vector [n], the same n on every row."""

    @abstractmethod
    def _broadcast(self, vector: np.ndarray, root: int) -> None:
        """Overwrite a contiguous uint8 or int64 vector by that of row `root`."""

    @abstractmethod
    def barrier(self) -> None:
        """Return once every row has come here."""

    @abstractmethod
    def abort(self, code: int) -> NoReturn:
        """End every rank of the launch now, with exit status `code`. Not collective: one row is enough."""

    @abstractmethod
    def close(self) -> None:
        """Collective: wait for all rows, then let go of the channel. A second call does nothing."""

    def everywhere(self, error: E) -> E:
        """Mark an error that all rows raise alike, so that only row 0 prints it: raise transport.everywhere(error)."""
        self._common = error
        return error

    def is_everywhere(self, error: BaseException) -> bool:
        return error is self._common

    def all_sum(self, vector: np.ndarray) -> np.ndarray:
        """Sum over rows of an int8, int32 or int64 vector, in its dtype.

        Wraps silently: the caller chooses a dtype that cannot overflow.  Traffic: the vector's bytes a row.
        """
        assert vector.ndim == 1 and vector.dtype in (np.int8, np.int32, np.int64), (vector.shape, vector.dtype)
        return self._sum(np.ascontiguousarray(vector))

    def all_gather(self, data: bytes) -> list[bytes]:
        """Every row's bytes, in row order; sizes may differ.  Traffic: 8 bytes, then the largest size a row."""
        sizes = self._gather(np.array([len(data)], np.int64))[:, 0]
        largest = int(sizes.max())
        padded = np.zeros(largest, np.uint8)
        padded[: len(data)] = np.frombuffer(data, np.uint8)
        parts = [self._gather(padded[i : i + CHUNK]) for i in range(0, largest, CHUNK)]
        return [b"".join(part[row].tobytes() for part in parts)[: sizes[row]] for row in range(self.rows)]

    def broadcast(self, data: bytes | None, root: int = 0) -> bytes:
        """The bytes of row `root` on every row; others may pass None.  Traffic: 8 bytes, then the size."""
        assert data is not None or self.row != root
        size = np.array([len(data or b"")], np.int64)
        self._broadcast(size, root)
        buffer = np.empty(int(size[0]), np.uint8)
        if self.row == root:
            buffer[:] = np.frombuffer(data or b"", np.uint8)
        for i in range(0, len(buffer), CHUNK):
            self._broadcast(buffer[i : i + CHUNK], root)
        return buffer.tobytes()

    def tally(
        self,
        ballots: Ballots,
        voters: int,
        hosted: Sequence[int],
        form: Literal["sum", "bits"] = "sum",
        stop: bool = False,
    ) -> Tally:
        """Count the votes of all clients of the round.

        Collective, one operation a round, also for a row that hosts nobody.
        ballots.votes: int8 [m, q].  voters: size of the cohort.  hosted: voters on each row, the same on every row,
        hosted[row] = m.  stop: this rank was asked to end the run after this round.
        Traffic: (2 q + 1) x 1 byte a row, x 4 from 128 voters or rows on; bits: 2 ceil(max(hosted) q / 8) + 1 bytes.
        Raises TransportError on every row alike if a sum is impossible.
        """
        assert len(ballots.votes) == hosted[self.row] and sum(hosted) == voters and len(hosted) == self.rows
        if form == "sum":
            sent = encode_sum(ballots.votes, stop, max(voters, self.rows))
            found = check_sum(self._sum(sent), voters, self.rows)
        else:
            sent = encode_bits(ballots.votes, stop, max(hosted))
            found = count_bits(self._gather(sent), hosted, ballots.votes.shape[1])
        if isinstance(found, str):
            raise self.everywhere(TransportError(found))
        sums, cast, stops = found
        alone = self.rows == 1
        return Tally(sums, cast, voters, stops, 0 if alone else sent.nbytes, 0 if alone else 1)


def encode_sum(votes: np.ndarray, stop: bool, most: int) -> np.ndarray:
    """[sums | cast | stop] of int8 votes [m, q].  most: the largest count an entry may reach, voters or rows."""
    # int32, not the votes' own int8: 128 clients that agree would wrap round to -128 and lose the vote.
    lane = np.int8 if most <= 127 else np.int32
    q = votes.shape[1]
    vector = np.empty(2 * q + 1, lane)
    vector[:q] = votes.sum(0, dtype=lane)
    vector[q:-1] = (votes != 0).sum(0, dtype=lane)
    vector[-1] = stop
    return vector


def check_sum(vector: np.ndarray, voters: int, rows: int) -> tuple[np.ndarray, np.ndarray, int] | str:
    """(sums, cast, stops) of a summed vector [sums | cast | stop], or what is impossible about it."""
    wide = vector.astype(np.int32)
    q = len(wide) // 2
    sums, cast, stops = wide[:q], wide[q:-1], int(wide[-1])
    wrong = (np.abs(sums) > cast) | (cast > voters) | ((sums ^ cast) & 1).astype(bool)
    if not wrong.any() and 0 <= stops <= rows:
        return sums, cast, stops
    if not wrong.any():
        return f"{stops} of {rows} rows ask to stop: a row stuffed the ballot box"
    i = int(wrong.argmax())
    return (
        f"direction {i}: {cast[i]} votes that sum to {sums[i]} cannot come from {voters} voters of -1, 0 or +1; a row "
        'stuffed the ballot box (algorithm.ballot = "bits" makes that impossible)'
    )


def encode_bits(votes: np.ndarray, stop: bool, slots: int) -> np.ndarray:
    """uint8: packed signs [slots, q], packed abstentions [slots, q], stop.  slots: most clients that any row hosts."""
    padded = np.zeros((slots, votes.shape[1]), np.int8)
    padded[: len(votes)] = votes
    return np.concatenate([np.packbits(padded < 0), np.packbits(padded == 0), np.array([stop], np.uint8)])


def count_bits(received: np.ndarray, hosted: Sequence[int], q: int) -> tuple[np.ndarray, np.ndarray, int]:
    """(sums, cast, stops) of what all rows sent, uint8 [rows, n]; slots beyond a row's clients count for nothing."""
    rows, slots = len(hosted), max(hosted)
    half = received.shape[1] // 2
    shape = (rows, slots, q)
    minus = np.unpackbits(received[:, :half], axis=1, count=slots * q).reshape(shape).astype(bool)
    abstains = np.unpackbits(received[:, half:-1], axis=1, count=slots * q).reshape(shape).astype(bool)
    real = np.arange(slots)[None, :, None] < np.asarray(hosted)[:, None, None]
    voted = real & ~abstains
    cast = voted.sum((0, 1), dtype=np.int32)
    return (cast - 2 * (voted & minus).sum((0, 1), dtype=np.int32), cast, int(np.count_nonzero(received[:, -1])))


def _row_names(rows: Sequence[int]) -> str:
    """[3] -> "row 3"; [0, 1, 2, 5] -> "rows 0-2, 5"."""
    runs: list[list[int]] = []
    for row in rows:
        if runs and row == runs[-1][-1] + 1:
            runs[-1].append(row)
        else:
            runs.append([row])
    spans = [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    return f"row{'s' * (len(rows) > 1)} " + ", ".join(spans)


def _groups(transport: Transport, value: bytes) -> dict[bytes, list[int]]:
    """Collective: which rows hold which value, in order of the first row."""
    groups: dict[bytes, list[int]] = {}
    for row, theirs in enumerate(transport.all_gather(value)):
        groups.setdefault(theirs, []).append(row)
    return groups


def agree(transport: Transport, problem: str | None) -> None:
    """Collective: if any row has a problem, every row raises ConfigError with all; nobody waits for the dead."""
    groups = _groups(transport, (problem or "").encode())
    groups.pop(b"", None)
    if groups:
        texts = [f"{_row_names(rows)}: {text.decode()}" for text, rows in groups.items()]
        if len(groups) == 1 and len(next(iter(groups.values()))) == transport.rows:
            texts = [text.decode() for text in groups]
        raise transport.everywhere(ConfigError("\n".join(texts)))


def check_same(transport: Transport, what: str, value: bytes | str, error: type[HpcfedError] = ConfigError) -> None:
    """Collective: every row must hold the same value; else every row raises `error` that names who holds which.

    what: the noun of the message, e.g. "the model's fingerprint".  Traffic: 8 bytes, then the value a row.
    """
    groups = _groups(transport, value if isinstance(value, bytes) else value.encode())
    if len(groups) > 1:
        is_text = isinstance(value, str)
        texts = {raw: raw.decode(errors="replace") if is_text else raw.hex() for raw in groups}
        same = len(os.path.commonprefix(list(texts.values())))  # noqa: RUF071  characters are meant
        held = [f"{_row_names(rows)}: {_shown(texts[raw], same)}" for raw, rows in groups.items()]
        raise transport.everywhere(error(f"{what} differs between rows ({'; '.join(held)})"))


def _shown(text: str, same: int) -> str:
    """A value that equals the others' in its first `same` characters: where it differs, if it is long."""
    start = max(0, same - 20) if len(text) > 64 else 0
    shown = text[start : start + 60]
    return "..." * (start > 0) + shown + "..." * (start + 60 < len(text))


def flush() -> None:
    """Write out what Python still holds back, as far as anybody reads it: a closed pipe must not keep a rank alive."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


def first_line(error: BaseException) -> str:
    """The first 160 characters of an error's message, or its type if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


def lost(why: str, row: int | None = None) -> str:
    """The message of PeerLostError."""
    return f"lost {'another row' if row is None else f'row {row}'} ({why}); unless it was killed, it says why itself"
