"""Data files of a few rows: written as given, read by the program's own readers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hpcfed.errors import DataError
from hpcfed.tasks.formats import read_rows
from hpcfed.tasks.tree import OnDisk

COLUMNS = ("text", "label")


def put(file: Path, content: str | bytes) -> Path:
    """`file` with exactly these bytes, in a folder that is made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def rows_of(file: Path, wanted: Sequence[str] = COLUMNS) -> list[tuple[Any, ...]]:
    """The wanted columns, row by row."""
    rows = read_rows(OnDisk(file), wanted)
    return list(zip(*(rows.column(name) for name in wanted), strict=True))


def refused_file(file: Path, *parts: str, wanted: Sequence[str] = COLUMNS) -> None:
    """Reading it is a DataError of one line that names the file and has all `parts`."""
    with pytest.raises(DataError) as raised:
        rows_of(file, wanted)
    for part in (str(file), *parts):
        assert part in str(raised.value), raised.value
    assert "\n" not in str(raised.value)
