"""The client axis: how what all rows say becomes one tally, one list of reports or one sum, the same on every row.

A row's operations are five: sum, gather, gather to row 0, broadcast, barrier. solo.py, torchdist.py and mpi.py
implement them; what is said by them stands in this file and, as arithmetic without communication, in wire.py. A round
costs one collective, or two if its tally is private:

    tally           sums of votes, added up over rows; or a bit a client, gathered and recounted by every row
    private_tally   sums of votes to row 0 alone, which tells the others what it decides
    collect         the float32 of every client, gathered
    sum_in_place    a dense int64 vector, added up over rows

Promise: what all rows get is the same on every row, and for every number of rows: integers that honest rows cannot
overflow, and floats that are never added up here, but arrive in client order and bit for bit.
"""

from __future__ import annotations

import contextlib
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal, NoReturn, TypeVar, cast

import numpy as np

from ..errors import ConfigError, HpcfedError, TransportError
from ..messages import Ballots, Reports, Tally
from .row import Row
from .wire import STUFFED, check_sum, count_bits, decide_alone, encode_bits, encode_sum, filled

E = TypeVar("E", bound=HpcfedError)
T = TypeVar("T")
CHUNK = 1 << 26  # bytes a message: far below the 2**31 elements that MPI counts in an int


class PeerLostError(TransportError):
    """Another row is gone. Secondary: that row, or its launcher, has said why."""


class Transport(ABC):
    """One row's end of the client axis.  name: for people.  rank: of the launch.  rows: on the client axis.

    row: which of them this rank belongs to, and the shard axis within it.  noun: what messages call an entry of
    `everyone`: row, or rank.

    Every method but abort is collective: all rows call it, in the same order. A row that dies makes the others'
    next collective raise PeerLostError.
    """

    name: str
    rank: int
    row: Row
    rows: int
    noun = "row"
    _common: HpcfedError | None = None

    def name_ranks(self) -> None:
        """Several ranks make a row from now on, so messages name ranks."""
        self.noun = "rank"

    @abstractmethod
    def _sum(self, vector: np.ndarray) -> None:
        """Overwrite a contiguous int8, int32 or int64 vector by its sum over rows."""

    @abstractmethod
    def _gather(self, vector: np.ndarray) -> np.ndarray:
        """[rows, n] of a contiguous uint8 or int64 vector [n], the same n on every row."""

    @abstractmethod
    def _to_root(self, vector: np.ndarray) -> np.ndarray | None:
        """[rows, n] of a contiguous int8 or int32 vector [n] on row 0, None on the others.

        Straight from each row to row 0: through no other row, as a tree would.
        """

    @abstractmethod
    def _broadcast(self, vector: np.ndarray, root: int) -> None:
        """Overwrite a contiguous uint8, int8, int32 or int64 vector by that of row `root`."""

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

    def sum_in_place(self, vector: np.ndarray) -> int:
        """Overwrite an int8, int32 or int64 vector [n] by its sum over rows; returns the number of collectives.

        Collective, with the same n and dtype on every row.  vector: contiguous, n >= 0.
        Wraps silently: the caller chooses a dtype that cannot overflow.
        Traffic: the vector's bytes a row, in messages of CHUNK bytes; alone none.  Raises PeerLostError.
        """
        assert vector.ndim == 1 and vector.dtype in (np.int8, np.int32, np.int64), (vector.shape, vector.dtype)
        assert vector.flags.c_contiguous and vector.flags.writeable
        step = CHUNK // vector.itemsize
        for i in range(0, len(vector), step):
            self._sum(vector[i : i + step])
        return self._traffic(vector.nbytes, -(-len(vector) // step))[1]

    def _gathered(self, vector: np.ndarray) -> tuple[np.ndarray, int]:
        """[rows, n] of a uint8 vector [n], the same n on every row, in messages of CHUNK bytes; how many those were."""
        received = np.empty((self.rows, len(vector)), np.uint8)
        for i in range(0, len(vector), CHUNK):
            received[:, i : i + CHUNK] = self._gather(vector[i : i + CHUNK])
        return received, -(-len(vector) // CHUNK)

    def _traffic(self, size: int, operations: int) -> tuple[int, int]:
        """(payload_bytes, collectives) of a round: alone nothing is sent."""
        return (size, operations) if self.rows > 1 else (0, 0)

    def _hosts(self, here: int, all_rows: int, hosted: Sequence[int]) -> bool:
        """Whether `hosted` is about these rows, and agrees with the clients here and with those of all rows."""
        return here == hosted[self.row.index] and all_rows == sum(hosted) and self.rows == len(hosted)

    def all_gather(self, data: bytes) -> list[bytes]:
        """Every row's bytes, in row order; sizes may differ.  Traffic: 8 bytes, then the largest size a row."""
        sizes = self._gather(np.array([len(data)], np.int64))[:, 0]
        largest = int(sizes.max())
        padded = np.zeros(largest, np.uint8)
        padded[: len(data)] = np.frombuffer(data, np.uint8)
        received, _ = self._gathered(padded)
        return [theirs[:size].tobytes() for theirs, size in zip(received, sizes, strict=True)]

    def everyone(self, data: bytes) -> list[bytes]:
        """Every rank's bytes, in rank order, also of those that do not speak for their row."""
        return self.all_gather(data)

    def any(self, flag: bool) -> bool:
        """Whether any rank says so, the same on every rank.  Traffic: 4 bytes a row."""
        said = np.array([self.row.any(flag)], np.int32)
        self.sum_in_place(said)
        return bool(said[0])

    def broadcast(self, data: bytes | None, root: int = 0) -> bytes:
        """The bytes of row `root`'s shard 0 on every rank; others may pass None.  Traffic: 8 bytes, then the size."""
        assert data is not None or self.row.index != root
        size = np.array([len(data or b"")], np.int64)
        self._broadcast(size, root)
        buffer = np.empty(int(size[0]), np.uint8)
        if self.row.index == root:
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
        assert self._hosts(len(ballots.votes), voters, hosted)
        operations = 1
        if form == "sum":
            sent = encode_sum(ballots.votes, stop, max(voters, self.rows))
            self._sum(sent)
            counted = check_sum(sent, voters, self.rows)
        else:
            sent = encode_bits(ballots.votes, stop, max(hosted))
            received, operations = self._gathered(sent)
            counted = count_bits(received, hosted, ballots.votes.shape[1])
        if isinstance(counted, str):
            raise self.everywhere(TransportError(counted))
        sums, cast, stops = counted
        return Tally(sums, cast, voters, stops, *self._traffic(sent.nbytes, operations))

    def private_tally(
        self,
        ballots: Ballots,
        voters: int,
        hosted: Sequence[int],
        draw: Callable[[np.ndarray], np.ndarray],
        stop: bool = False,
    ) -> Tally:
        """Decide the round on row 0, the only one that sees the tally; the others learn the decided signs.

        Collective, two operations a round: a gather to row 0 and a broadcast.  ballots, voters, hosted, stop: as in
        tally. Nothing is summed on the way, since the partial sums of a tree would pass through other rows.
        draw: called on row 0 only, sums int32 [q] -> int8 [q] in {-1, +1}; the noise of the mechanism is in there.
        Returns, on row 0 too, sums = the decided signs and cast = 1 for each. The true sums, and who abstained (even if
        all did), leave this method nowhere. Stop flags are no secret.
        Traffic: 3 q + 3 entries a row, of a byte, or of four from 128 voters or rows on.
        Raises TransportError on every row alike if a sum is impossible, without saying which: that would tell it.
        """
        assert self._hosts(len(ballots.votes), voters, hosted)
        sent = encode_sum(ballots.votes, stop, max(voters, self.rows))
        received = self._to_root(sent)
        answer = np.empty(ballots.votes.shape[1] + 2, sent.dtype)
        if received is not None:
            answer[:] = decide_alone(received, voters, draw)
        self._broadcast(answer, 0)
        signs, state, stops = answer[:-2].astype(np.int32), int(answer[-2]), int(answer[-1])
        if state == STUFFED:
            raise self.everywhere(
                TransportError(
                    f"this round's votes cannot come from {voters} voters of -1, 0 or +1: a row stuffed the ballot "
                    "box; by how much stays with row 0, for the tally is private"
                )
            )
        traffic = self._traffic(sent.nbytes + answer.nbytes, 2)
        return Tally(signs, np.ones_like(signs), voters, stops, *traffic)

    def collect(self, values: np.ndarray, sizes: np.ndarray, hosted: Sequence[int], stop: bool = False) -> Reports:
        """The floats of all clients of the round, on every row, in client order and bit for bit.

        Collective, one operation a round (one more each CHUNK bytes), also for a row that hosts nobody.
        values: float32 [m, s], of this row's clients in order.  sizes: int64 [K], carried into the reports, not sent.
        hosted: clients on each row, the same on every row; sum K, hosted[row] = m. Row 0 hosts the first of them,
        row 1 the next.  stop: this rank was asked to end the run after this round.
        Traffic: 4 max(hosted) s + 1 bytes a row.  Raises PeerLostError.
        """
        assert values.ndim == 2 and values.dtype == np.float32, (values.shape, values.dtype)
        assert self._hosts(len(values), len(sizes), hosted)
        slots, s = max(hosted), values.shape[1]
        sent = np.zeros(slots * s * 4 + 1, np.uint8)
        sent[: values.nbytes] = np.frombuffer(values.tobytes(), np.uint8)
        sent[-1] = stop
        received, operations = self._gathered(sent)
        # Bytes until the end: a float that is moved as a float may lose the payload of its NaN.
        floats = received[:, :-1].reshape(self.rows, slots, s * 4)[filled(hosted)].view(np.float32)
        stops = int(np.count_nonzero(received[:, -1]))
        return Reports(floats, sizes, stops, *self._traffic(sent.nbytes, operations))


def _row_names(rows: Sequence[int], noun: str = "row") -> str:
    """[3] -> "row 3"; [0, 1, 2, 5] -> "rows 0-2, 5"."""
    runs: list[list[int]] = []
    for row in rows:
        if runs and row == runs[-1][-1] + 1:
            runs[-1].append(row)
        else:
            runs.append([row])
    spans = [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    return f"{noun}{'s' * (len(rows) > 1)} " + ", ".join(spans)


def _groups(transport: Transport, value: bytes) -> dict[bytes, list[int]]:
    """Collective: which ranks hold which value, in order of the first."""
    groups: dict[bytes, list[int]] = {}
    for row, theirs in enumerate(transport.everyone(value)):
        groups.setdefault(theirs, []).append(row)
    return groups


def agree(transport: Transport, problem: str | None) -> None:
    """Collective: if any row has a problem, every row raises ConfigError with all; nobody waits for the dead."""
    groups = _groups(transport, (problem or "").encode())
    ranks = sum(map(len, groups.values()))
    groups.pop(b"", None)
    if groups:
        texts = [f"{_row_names(rows, transport.noun)}: {text.decode()}" for text, rows in groups.items()]
        if len(groups) == 1 and len(next(iter(groups.values()))) == ranks:
            texts = [text.decode() for text in groups]
        raise transport.everywhere(ConfigError("\n".join(texts)))


def together(transport: Transport, work: Callable[[], T]) -> T:
    """Collective: work() on every row; if it fails on any, every row raises ConfigError with all that went wrong."""
    done, problem = None, None
    try:
        done = work()
    except HpcfedError as e:
        problem = str(e)
    agree(transport, problem)
    return cast(T, done)


def check_same(transport: Transport, what: str, value: bytes | str, error: type[HpcfedError] = ConfigError) -> None:
    """Collective: every row must hold the same value; else every row raises `error` that names who holds which.

    what: the noun of the message, e.g. "the model's fingerprint".  Traffic: 8 bytes, then the value a row.
    """
    groups = _groups(transport, value if isinstance(value, bytes) else value.encode())
    if len(groups) > 1:
        is_text = isinstance(value, str)
        texts = {raw: raw.decode(errors="replace") if is_text else raw.hex() for raw in groups}
        same = len(os.path.commonprefix(list(texts.values())))  # noqa: RUF071  characters are meant
        values = [f"{_row_names(rows, transport.noun)}: {_shown(texts[raw], same)}" for raw, rows in groups.items()]
        raise transport.everywhere(error(f"{what} differs between {transport.noun}s ({'; '.join(values)})"))


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


def lost(why: str, row: int | None = None, noun: str = "row") -> str:
    """The message of PeerLostError."""
    who = f"another {noun}" if row is None else f"{noun} {row}"
    return f"lost {who} ({why}); unless it was killed, it says why itself"
