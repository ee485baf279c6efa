"""What a file's name says about its form, and which module reads that."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..errors import DataError
from .arrow import read_parquet
from .delimited import read_csv, read_tsv
from .json_rows import read_json
from .lines import PACKED, endings, opened
from .rows import Rows
from .tree import Node


def _json(file: Node, wanted: Sequence[str]) -> Rows:
    with opened(file) as raw:
        return read_json(raw, file.where, wanted)


#: Ending -> its reader: (file, names of the wanted columns) -> rows.
FORMATS: dict[str, Callable[[Node, Sequence[str]], Rows]] = {
    ".jsonl": _json,
    ".ndjson": _json,
    ".json": _json,
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".parquet": read_parquet,
}
NAMED = f"{', '.join(FORMATS)} (also with {', '.join(PACKED)} behind it)"


def is_data(name: str) -> bool:
    """Whether a file of this name holds rows."""
    return endings(name)[1] in FORMATS


def read_rows(file: Node, wanted: Sequence[str]) -> Rows:
    """The wanted columns of one file. DataError for what is wrong with it."""
    rows = FORMATS[endings(file.name)[1]](file, wanted)
    if not len(rows):
        raise DataError(f"{file.where}: holds no rows")
    return rows
