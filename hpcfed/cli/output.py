"""stdout and stderr of the command: what cannot be written there must not end a run that can go on.

A reader that has seen enough (head) is no error. A disk that is full is one for a command whose output is its result,
but not for a run, which is saved elsewhere. A character that the terminal's encoding lacks is written as its escape.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from contextlib import suppress
from typing import Any


class _Descriptor(io.RawIOBase):
    """A file descriptor to which writing never fails.  error: the first that there was."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def write(self, raw: Any, /) -> int:
        while True:
            try:
                return os.write(self._fd, raw)
            except BlockingIOError:  # somebody has made the pipe so
                select.select([], [self._fd], [])
            except OSError as error:
                self.error = self.error or error
                return memoryview(raw).nbytes


_stdout: _Descriptor | None = None


def make_safe() -> None:
    """From now on this process's stdout and stderr take everything, whether they are closed, full or of few letters."""
    global _stdout
    for fd in range(3):  # a closed one would be the next file to be opened, and get what libraries print
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is sys.__stdout__:  # else somebody else reads it
        _stdout = _Descriptor(1)
        sys.stdout = _text(_stdout, sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(_Descriptor(2), sys.stderr, write_through=True)


def _text(raw: _Descriptor, before: Any, write_through: bool = False) -> io.TextIOWrapper:
    encoding = getattr(before, "encoding", None) or "utf-8"
    with suppress(OSError, ValueError, AttributeError):
        before.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding,
        "backslashreplace",
        line_buffering=write_through or raw.isatty(),
        write_through=write_through,
    )


def lost() -> str:
    """Why some of stdout did not arrive, each time said once; "" if all did, or its reader has left."""
    if _stdout is None:
        return ""
    sys.stdout.flush()
    error, _stdout.error = _stdout.error, None
    return "" if error is None or error.errno == errno.EPIPE else error.strerror or str(error)
