"""Files that are whole or not there: what a crash, a power failure or a full disk at any moment leaves behind.

Promise  `write_atomic` leaves the old file or the new one, never a part; the new one is on disk before it has its name
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterable
from pathlib import Path


def write_atomic(
    path: Path, content: str | bytes | Iterable[bytes | memoryview], check: Callable[[Path], None] | None = None
) -> int:
    """Replace a file in one step; its size in bytes.

    content: text (UTF-8), bytes, or parts that are made as they are written.  check: called with the finished file
    while it still has another name; what it raises leaves the old file alone, as does an OSError.
    """
    parts = [content.encode()] if isinstance(content, str) else [content] if isinstance(content, bytes) else content
    fresh = path.with_name(path.name + ".new")
    try:
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            size = sum(write_all(fd, part) for part in parts)
            os.fsync(fd)
        finally:
            os.close(fd)
        if check:
            check(fresh)
        fresh.replace(path)
        sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            fresh.unlink()
    return size


def write_all(fd: int, raw: bytes | memoryview) -> int:
    """Write all of `raw`; its size in bytes."""
    view = memoryview(raw)
    while view:  # one write() unless the disk is nearly full: a short write, then the error on the next
        view = view[os.write(fd, view) :]
    return len(raw)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power failure."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # some network file systems cannot
            raise
    finally:
        os.close(fd)
