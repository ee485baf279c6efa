"""Folders of this machine that belong to no run: where compiled kernels are kept, and temporary files.

Kernels are kept in the first of these that can be written

    NUMBA_CACHE_DIR     the user's own choice
    the package         beside its sources
    the user's cache    XDG_CACHE_HOME, or ~/.cache
    TMPDIR              in a folder of this user's alone

Promise  what is kept is run again, so a folder that others might write to is not used unless the user names it; kernels
         of other sources than these are never taken for theirs
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

NOISE = Path(__file__).parent / "noise"
PROBE = bytes(1 << 16)  # what a folder must have room for, to be worth a try


def kernel_folders() -> Iterator[tuple[Path, str]]:
    """Where compiled kernels may be kept, best first, each with why it cannot be ("" if it can); made where needed."""
    version = _version()
    if chosen := os.environ.get("NUMBA_CACHE_DIR"):
        yield _tried(Path(chosen).absolute() / f"hpcfed-{version}")
    yield _tried(NOISE / "__pycache__" / f"kernels-{version}")
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    with suppress(RuntimeError):  # no HOME, and a user without an entry in the passwd file
        home = home.expanduser()
    if home.is_absolute():
        folder, why = _tried(home / "numba" / f"hpcfed-{version}")
        yield folder, why or _foreign(folder)
    try:
        folder = own_temporary("hpcfed-kernels") / version
    except OSError as error:
        yield Path(error.filename or temporary()), error.strerror or str(error)
    else:
        yield _tried(folder)


@cache
def _version() -> str:
    """Of the sources that kernels are compiled from: Numba looks at the file of a kernel, not at what it calls."""
    h = hashlib.blake2b(digest_size=8)
    for file in sorted(NOISE.glob("*.py")):
        h.update(file.read_bytes())
    return h.hexdigest()


def _tried(folder: Path) -> tuple[Path, str]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return folder, error.strerror or str(error)
    return folder, trouble(folder)


def trouble(folder: str | Path) -> str:
    """Why a file cannot be written in a folder; "" if one can: permission, a read-only mount, a full disk, a quota."""
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            written = file.write(PROBE)
    except OSError as error:
        return error.strerror or str(error)
    return "" if written == len(PROBE) else os.strerror(errno.ENOSPC)


def _foreign(folder: Path) -> str:
    """Why others may have written to a folder; "" if nobody but this user, its group and root can."""
    info = os.lstat(folder)
    if info.st_uid not in (os.geteuid(), 0):
        return f"belongs to user {info.st_uid}"
    return "everybody may write there" if info.st_mode & stat.S_IWOTH else ""


def own_temporary(name: str) -> Path:
    """A folder below the temporary one that this user alone can enter, the same in every process.

    Raises OSError if it cannot be made, or if somebody else has put something there under its name.
    """
    folder = Path(tempfile.gettempdir()) / f"{name}-{os.geteuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    info = os.lstat(folder)
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid() or info.st_mode & 0o077:
        raise PermissionError(errno.EPERM, "others may write there", str(folder))
    return folder


def temporary() -> str:
    """The temporary folder as messages name it, with the variable that chooses another."""
    try:
        return f"TMPDIR ({tempfile.gettempdir()})"
    except OSError:
        return f"TMPDIR ({os.environ.get('TMPDIR', 'not set')}; neither there nor in /tmp can a file be made)"


def writable_triton_cache() -> None:
    """Let Triton keep its kernels in a temporary folder where it cannot in its own, below the user's home."""
    if "TRITON_CACHE_DIR" in os.environ or "TRITON_HOME" in os.environ:
        return
    own = Path(os.path.expanduser("~/.triton/cache"))  # noqa: PTH111  without a HOME there is none, and no error
    if own.is_absolute() and not _tried(own)[1]:
        return
    with suppress(OSError):  # Triton says why it cannot write
        os.environ["TRITON_CACHE_DIR"] = str(own_temporary("hpcfed-triton"))
