"""The lines of a text file: unpacked, without a byte order mark, decoded from UTF-8 and from nothing else.

Promise  a file that is not text, or not UTF-8, is named as what it is, with line and byte; no character is replaced
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

import pyarrow as pa

from ..errors import DataError, binary, first_line, not_utf8
from .tree import Node

BOM = b"\xef\xbb\xbf"
POINTER = b"version https://git-lfs.github.com/spec/v1"


def _zstd(file: BinaryIO) -> BinaryIO:
    return cast(BinaryIO, io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd")))


#: Ending -> what unpacks such a file.
PACKED: dict[str, Callable[[BinaryIO], BinaryIO]] = {
    ".gz": lambda file: cast(BinaryIO, gzip.GzipFile(fileobj=file)),
    ".bz2": lambda file: cast(BinaryIO, bz2.BZ2File(file)),
    ".xz": lambda file: cast(BinaryIO, lzma.LZMAFile(file)),  # noqa: SIM115
    ".zst": _zstd,
}


def endings(name: str) -> tuple[str, str, str]:
    """stem, format and packing of a file's name, the latter in lower case: ("train", ".jsonl", ".gz")."""
    packing = next((ending for ending in PACKED if name.lower().endswith(ending)), "")
    name = name[: len(name) - len(packing)]
    stem, dot, ending = name.rpartition(".")
    return (stem, f".{ending.lower()}", packing) if stem and dot else (name, "", packing)


@contextmanager
def opened(file: Node) -> Iterator[BinaryIO]:
    """The file's bytes, unpacked; DataError if it is empty, a pointer to a file, or packed otherwise than its name."""
    packing = endings(file.name)[2]
    with file.open() as raw:
        head = raw.read(len(POINTER))
        raw.seek(0)
        if not head:
            raise DataError(f"{file.where} is empty")
        if head == POINTER:
            raise DataError(
                f"{file.where}: is a Git LFS pointer, not the file itself; fetch it: git lfs pull, in its repository"
            )
        try:
            yield PACKED[packing](raw) if packing else raw
        except (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException) as e:
            what = "cannot be unpacked" if packing else "cannot be read"
            raise DataError(f"{file.where}: {what}: {first_line(e)}") from None


def lines(raw: BinaryIO, where: str) -> Iterator[str]:
    """The decoded lines, each with its end as it stands there; a file of an old Mac ends them with a CR alone."""
    number, only_cr, begins = 0, False, b""
    for chunk in raw:
        if not number:
            begins = chunk[:8]
            chunk = chunk.removeprefix(BOM)
            only_cr = b"\r" in chunk.rstrip(b"\r\n")
        for line in chunk.splitlines(keepends=True) if only_cr else (chunk,):  # bytes: at CR, LF and CRLF only
            number += 1
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as e:
                raise DataError(f"{where}, line {number}: {binary(begins) or not_utf8(line, e.start)}") from None
            if "\0" in text:
                raise DataError(f"{where}, line {number}: {binary(begins) or not_utf8(line, line.index(0))}")
            yield text
