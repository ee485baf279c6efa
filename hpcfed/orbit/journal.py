"""The live orbit: an append-only file that holds every decision before it moves a weight.

Format (little endian)   magic "hpcfedJ1" | uint32 n | header JSON [n] | uint32 crc
                         then a record a round: uint64 t | decision [header.round_bytes] | uint32 crc
A record's crc32 goes on from the crc of the header, so a record of another run does not pass for one of this run.

Promise  A process that dies at any moment loses nothing that `append` returned from: every record is one write().
         A power failure loses what was written since the last fdatasync (at most `sync_seconds` of rounds), and those
         rounds are recomputed to the same bits. A torn tail is cut off and reported; damage before intact records is
         an OrbitError and the file stays as it is. A full disk leaves a valid journal.
"""

from __future__ import annotations

import errno
import os
import struct
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from ..atomic import write_all, write_atomic
from ..errors import OrbitError
from .header import MAX_HEADER_BYTES, Header, read_regular

MAGIC = b"hpcfedJ1"
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")


@dataclass(frozen=True)
class _Contents:
    header: Header
    decisions: list[bytes]
    crc: int  # of the header; every record's crc starts from it
    good: int  # bytes up to the end of the last intact record
    repaired: str | None


class Journal:
    """A journal open for appending. Only one process may have it open: the run folder's lock sees to that.

    header, decisions: as on disk.  repaired: what was cut off on opening, or None.
    """

    def __init__(self, path: Path, contents: _Contents, sync_seconds: float) -> None:
        self.path, self.header, self.repaired = path, contents.header, contents.repaired
        self.decisions = contents.decisions
        self._crc, self._size, self._sync_seconds = contents.crc, contents.good, sync_seconds
        self._synced_at, self._dirty = time.monotonic(), False
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        except OSError as error:
            raise OrbitError(f"{path}: cannot open the journal for writing: {error.strerror}") from None
        if contents.repaired:
            try:
                os.ftruncate(self._fd, self._size)
                os.fsync(self._fd)
            except OSError as error:
                os.close(self._fd)
                raise OrbitError(f"{path}: cannot cut off the torn tail: {error.strerror}") from None

    @staticmethod
    def create(path: str | Path, header: Header, sync_seconds: float = 1.0) -> Journal:
        """A new journal without rounds, safe on disk; OrbitError if `path` exists or cannot be written."""
        path = Path(path)
        text = header.to_json().encode()
        assert len(text) <= MAX_HEADER_BYTES
        raw = MAGIC + _U32.pack(len(text)) + text
        crc = zlib.crc32(raw)
        raw += _U32.pack(crc)
        if os.path.lexists(path):
            raise OrbitError(f"{path}: there is a journal already; go on with it (--resume) or start over (--force)")
        try:
            write_atomic(path, raw)  # a crash here leaves no journal rather than half a header
        except OSError as error:
            raise OrbitError(f"{path}: cannot create the journal: {error.strerror}; {_cure(error)}") from None
        return Journal(path, _Contents(header, [], crc, len(raw), None), sync_seconds)

    @staticmethod
    def open(path: str | Path, sync_seconds: float = 1.0) -> Journal:
        """The journal at `path`, every record verified, ready for round `rounds`; cuts off a torn tail."""
        path = Path(path)
        return Journal(path, _parse(path, read_regular(path, "journal")), sync_seconds)

    @property
    def rounds(self) -> int:
        """Number of rounds in the journal, which is the next round's t."""
        return len(self.decisions)

    def append(self, t: int, decision: bytes) -> None:
        """Put round t = `rounds` on record; after an OrbitError (disk full, ...) what is on disk is a valid journal."""
        assert t == self.rounds, f"round {t} appended to a journal of {self.rounds} rounds"
        assert (problem := self.header.decision_problem(decision)) is None, problem
        record = _U64.pack(t) + decision
        record += _U32.pack(zlib.crc32(record, self._crc))
        try:
            write_all(self._fd, record)
        except OSError as error:
            raise self._failed(t, error) from None
        self._size += len(record)
        self.decisions.append(bytes(decision))
        self._dirty = True
        if time.monotonic() - self._synced_at >= self._sync_seconds:
            self.sync()

    def sync(self) -> None:
        """Wait until every round on record would survive a power failure."""
        if self._dirty:
            try:
                os.fdatasync(self._fd)
            except OSError as error:
                problem = f"{self.path}: the disk did not take the journal: {error.strerror}"
                raise OrbitError(f"{problem}; {_cure(error)}") from None
            self._dirty, self._synced_at = False, time.monotonic()

    def close(self) -> None:
        """Sync and close; a second call does nothing."""
        if self._fd >= 0:
            try:
                self.sync()
            finally:
                os.close(self._fd)
                self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _failed(self, t: int, error: OSError) -> OrbitError:
        kept = f"rounds 0..{t - 1} are safe in it" if t else "it has no rounds yet"
        try:
            os.ftruncate(self._fd, self._size)
        except OSError:
            kept += " (the next start will cut off a torn tail)"
        return OrbitError(f"{self.path}: cannot write round {t}: {error.strerror}; {kept}; {_cure(error)}")


def read_journal(path: str | Path) -> tuple[Header, list[bytes], str | None]:
    """Header, decisions and what a torn tail lost (or None), without touching the file."""
    path = Path(path)
    return parse_journal(path, read_regular(path, "journal"))


def parse_journal(path: Path, raw: bytes) -> tuple[Header, list[bytes], str | None]:
    """As `read_journal`, from the bytes of the file."""
    contents = _parse(path, raw)
    return contents.header, contents.decisions, contents.repaired


def _cure(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "free some space (or raise the quota or file size limit) and go on with --resume"
    return "check the folder and its rights, then go on with --resume"


def _parse(path: Path, raw: bytes) -> _Contents:
    header, crc, start = _parse_header(path, raw)
    size = 12 + header.round_bytes
    decisions: list[bytes] = []
    end = start
    while end + size <= len(raw):
        t, intact = _record(raw, end, size, crc)
        if not intact:
            break
        decision, k = raw[end + 8 : end + size - 4], len(decisions)
        problem = f"is of round {t}" if t != k else header.decision_problem(decision)
        if problem:
            raise OrbitError(f"{path}: record {k} (byte {end}) {problem}; {_kept(k, end)}")
        decisions.append(decision)
        end += size
    if end == len(raw):
        return _Contents(header, decisions, crc, end, None)
    k = len(decisions)
    if (later := _next_intact(raw, end, size, crc, k)) is not None:
        where, t = later
        raise OrbitError(
            f"{path}: record {k} (byte {end}) is damaged, while round {t} (byte {where}) is intact again: "
            f"this is no torn tail; {_kept(k, end)}"
        )
    kept = f"rounds 0..{k - 1} are intact" if k else "no round was complete"
    return _Contents(header, decisions, crc, end, f"{path}: a torn tail of {len(raw) - end} bytes was dropped; {kept}")


def _kept(k: int, end: int) -> str:
    if not k:
        return "no round before it"
    return f"rounds 0..{k - 1} are intact and can be kept: head -c {end} JOURNAL > COPY is a valid journal of them"


def _parse_header(path: Path, raw: bytes) -> tuple[Header, int, int]:
    """Header, its crc and the offset of record 0."""
    if not raw.startswith(MAGIC):
        raise OrbitError(f"{path}: not a journal (it does not start with {MAGIC.decode()!r})")
    if len(raw) < 16:
        raise OrbitError(f"{path}: ends within the journal header, at byte {len(raw)}; no round is on record")
    (n,) = _U32.unpack_from(raw, 8)
    if n > MAX_HEADER_BYTES:
        raise OrbitError(f"{path}: damaged journal header: byte 8 says that it has {n} bytes")
    if len(raw) < 16 + n:
        where = f"at byte {len(raw)} of {16 + n}"
        raise OrbitError(f"{path}: ends within the journal header, {where}; no round is on record")
    crc = zlib.crc32(raw[: 12 + n])
    if _U32.unpack_from(raw, 12 + n)[0] != crc:
        raise OrbitError(f"{path}: damaged journal header (bytes 0..{15 + n} do not match their checksum)")
    try:
        return Header.from_json(raw[12 : 12 + n]), crc, 16 + n
    except OrbitError as error:
        raise OrbitError(f"{path}: {error}") from None


def _record(raw: bytes, at: int, size: int, crc: int) -> tuple[int, bool]:
    """Round of the record at byte `at`, and whether its checksum holds."""
    (stored,) = _U32.unpack_from(raw, at + size - 4)
    return _U64.unpack_from(raw, at)[0], zlib.crc32(memoryview(raw)[at : at + size - 4], crc) == stored


def _next_intact(raw: bytes, start: int, size: int, crc: int, k: int) -> tuple[int, int] | None:
    """Byte and round of the first intact record after k from byte `start` on, at any alignment.

    Any alignment, because a byte lost or added in the middle shifts all that follows, and none of that is a torn tail.
    """
    highest = k + (len(raw) - start) // size + 1
    offsets: list[int] = []
    for shift in range(8):
        count = max(0, (len(raw) - start - shift) // 8)
        words = np.frombuffer(raw, "<u8", count, start + shift) if count else np.empty(0, np.uint64)
        offsets += (np.flatnonzero((words > k) & (words <= highest)) * 8 + start + shift).tolist()
    for at in sorted(offsets):
        if at + size <= len(raw):
            t, intact = _record(raw, at, size, crc)
            if intact:
                return at, t
    return None
