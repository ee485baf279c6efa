"""The errors a user can meet. Every message names the setting or file, what was wrong and what would be right.

A user's fault raises one of these and reaches the terminal as one sentence, without a traceback.
Our own fault is an `assert`; a rank's fault stops all ranks (see transport/guard.py).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HpcfedError(Exception):
    """Anything hpcfed can explain to its user."""


class ConfigError(HpcfedError):
    """A setting, a command line or a combination of them is wrong."""


class DataError(HpcfedError):
    """A data set, a file of it or a row of it is wrong."""


class OrbitError(HpcfedError):
    """A journal, an orbit or a weights file is damaged, truncated, or belongs to another model."""


class RunFolderError(HpcfedError):
    """A run folder is finished, in use, or not writable."""


class TransportError(HpcfedError):
    """The ranks cannot talk, or what came over the wire is impossible."""


class DivergedError(HpcfedError):
    """No client's loss is finite any more, or rows no longer hold the same weights."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, at most 300 characters of it; its type if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


#: How files begin that are no text, and what they are.
_BEGINNINGS = {
    b"\xff\xfe\0\0": "UTF-32, not UTF-8; convert it: iconv -f UTF-32 -t UTF-8",
    b"\0\0\xfe\xff": "UTF-32, not UTF-8; convert it: iconv -f UTF-32 -t UTF-8",
    b"\xff\xfe": "UTF-16, not UTF-8; convert it: iconv -f UTF-16 -t UTF-8",
    b"\xfe\xff": "UTF-16, not UTF-8; convert it: iconv -f UTF-16 -t UTF-8",
    b"\x1f\x8b": "packed by gzip; let its name end in .gz",
    b"BZh": "packed by bzip2; let its name end in .bz2",
    b"\xfd7zXZ": "packed by xz; let its name end in .xz",
    b"\x28\xb5\x2f\xfd": "packed by zstd; let its name end in .zst",
    b"PK\x03\x04": "a zip archive (as .xlsx files are), not text",
    b"PAR1": "a Parquet file, not text; let its name end in .parquet",
}


def binary(content: bytes) -> str | None:
    """What a file is that begins like this, if it is known not to be text."""
    return next((what for beginning, what in _BEGINNINGS.items() if content.startswith(beginning)), None)


def _wide(line: bytes) -> str | None:
    """The encoding of a first line in which each character has two or four bytes, the most of them below 256."""
    head = line[: len(line) // 4 * 4][:64]
    most = [4 * head[i::4].count(0) > 0.7 * len(head) for i in range(4)]
    patterns = {
        (False, True, True, True): "UTF-32LE",
        (True, True, True, False): "UTF-32BE",
        (False, True, False, True): "UTF-16LE",
        (True, False, True, False): "UTF-16BE",
    }
    return patterns.get((most[0], most[1], most[2], most[3]))


def not_utf8(line: bytes, at: int) -> str:
    """What is wrong with a line that is not UTF-8 text, or has a NUL in it: at byte `at`, from 0."""
    if what := binary(line):
        return what
    if code := _wide(line):
        return f"{code[:6]}, not UTF-8; convert it: iconv -f {code} -t UTF-8"
    if line[at] == 0:
        return f"a NUL byte in it (byte {at + 1}); text has none"
    return (
        f"not UTF-8 text (byte {at + 1}): 0x{line[at]:02x} there; if it is Latin-1 or Windows-1252, convert it: "
        "iconv -f WINDOWS-1252 -t UTF-8"
    )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The tail of a message about an unknown `name`: the nearest known one, then all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    return (f"; did you mean {near[0]}?" if near else "") + f" (known: {', '.join(known)})"
