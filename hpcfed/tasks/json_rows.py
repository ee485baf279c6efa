"""JSON files: an object a line (JSON lines), or one document.

A document is a list of objects, objects one after the other, {"data": [...]}, or an object of columns, which are lists
of equal length. Which of these it is, is read off its beginning, not off its name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from ..config.manifest import unique
from ..errors import DataError
from .lines import BOM, lines
from .rows import Columns

_BLANK = re.compile(r"[ \t\r\n]*")
_MARK = BOM.decode()


_DECODER = json.JSONDecoder(object_pairs_hook=unique)


class _Collector:
    """Keeps the wanted columns of the rows that pass by."""

    def __init__(self, wanted: Sequence[str]) -> None:
        self.columns: dict[str, list[Any]] = {name: [] for name in wanted}
        self.names: dict[str, None] = {}
        self.count = 0

    def add(self, row: Any, where: str) -> None:
        if not isinstance(row, dict):
            raise DataError(f"{where}: a {type(row).__name__}, not a JSON object")
        if not row.keys() <= self.names.keys():
            self.names.update(dict.fromkeys(row))
        for name, column in self.columns.items():
            column.append(row.get(name))
        self.count += 1

    def rows(self, where: str) -> Columns:
        columns = {name: column for name, column in self.columns.items() if name in self.names}
        return Columns(where, list(self.names), columns, self.count)


def read_json(raw: BinaryIO, where: str, wanted: Sequence[str]) -> Columns:
    """The wanted columns. DataError with the line of what is not JSON, or no object."""
    source = enumerate(lines(raw, where), 1)
    first, number = "", 0
    for number, first in source:  # noqa: B007 both are used below
        if not first.isspace():
            break
    else:
        return Columns(where, [], {}, 0)
    second = next(((n, line) for n, line in source if not line.isspace()), None)
    try:
        row = _DECODER.decode(first)
        single = second is None or not isinstance(row, dict)
    except (ValueError, RecursionError):
        single = True  # a line that is not whole may be the beginning of a document
    if not single:
        assert second is not None
        return _of_lines(_chained((number, first), second, source), where, wanted)
    text = "\n" * (number - 1) + first  # so that a place in it is on the line that it has in the file
    if second is not None:
        text += "\n" * (second[0] - number - 1) + second[1]
    return _of_document(text + "".join(line for _, line in source), where, wanted)


def _chained(*parts: Any) -> Iterator[tuple[int, str]]:
    yield from parts[:-1]
    yield from parts[-1]


def _of_lines(source: Iterator[tuple[int, str]], where: str, wanted: Sequence[str]) -> Columns:
    found = _Collector(wanted)
    for number, line in source:
        if not line.isspace():
            # Files that were put one after the other have a mark in the middle.
            found.add(_decoded(line.removeprefix(_MARK), where, number), f"{where}, line {number}")
    return found.rows(where)


def _decoded(line: str, where: str, number: int) -> Any:
    try:
        return _DECODER.decode(line)
    except json.JSONDecodeError as e:
        raise DataError(f"{where}, line {number}: not a JSON object: {e.msg} (column {e.colno})") from None
    except (ValueError, RecursionError) as e:
        raise DataError(f"{where}, line {number}: {_why(e)}") from None


def _why(e: Exception) -> str:
    return "objects or lists too deep inside each other" if isinstance(e, RecursionError) else str(e)


def _of_document(text: str, where: str, wanted: Sequence[str]) -> Columns:
    found = _Collector(wanted)
    at = _after_blanks(text, 0)
    try:
        if text.startswith("[", at):
            at = _list(text, at, where, found)
        else:
            row, at = _next(text, at, where)
            if isinstance(row, dict) and _after_blanks(text, at) == len(text):
                return _of_object(row, where, wanted)
            found.add(row, f"{where}, line {_line(text, at)}")
            while (at := _after_blanks(text, at)) < len(text):
                row, at = _next(text, at, where)
                found.add(row, f"{where}, line {_line(text, at)}")
    except json.JSONDecodeError as e:
        raise DataError(f"{where}, line {e.lineno}: not a JSON object: {e.msg} (column {e.colno})") from None
    return found.rows(where)


def _next(text: str, at: int, where: str) -> tuple[Any, int]:
    """The value that begins there, and where it ends. DataError with its line."""
    try:
        return _DECODER.raw_decode(text, at)
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError) as e:
        raise DataError(f"{where}, line {_line(text, at)}: {_why(e)}") from None


def _list(text: str, at: int, where: str, found: _Collector) -> int:
    """Element by element: the whole of it as Python objects would take many times the file's size."""
    start, at = at, _after_blanks(text, at + 1)
    while not text.startswith("]", at):
        begin = at
        row, at = _next(text, at, where)
        if not isinstance(row, dict) and found.count == 0:
            raise DataError(f"{where}, line {_line(text, start)}: a list, not a JSON object")
        found.add(row, f"{where}, line {_line(text, begin)}")
        at = _after_blanks(text, at)
        if text.startswith(",", at):
            at = _after_blanks(text, at + 1)
            if text.startswith("]", at):
                raise json.JSONDecodeError("a comma before the end of the list", text, at)
        elif not text.startswith("]", at):
            raise json.JSONDecodeError("Expecting ',' delimiter", text, at)
    if (end := _after_blanks(text, at + 1)) < len(text):
        raise json.JSONDecodeError("Extra data", text, end)
    return end


def _of_object(row: dict[str, Any], where: str, wanted: Sequence[str]) -> Columns:
    """A file that is one object: {"data": [rows]}, columns, or a single row."""
    found = _Collector(wanted)
    if isinstance(row.get("data"), list) and not set(wanted) & row.keys():
        for number, inner in enumerate(row["data"], 1):
            found.add(inner, f"{where}, row {number}")
        return found.rows(where)
    have = [name for name in wanted if name in row]
    if have and all(isinstance(row[name], list) for name in have):
        sizes = {name: len(row[name]) for name in have}
        if len(set(sizes.values())) > 1:
            raise DataError(f"{where}: one object whose columns have different lengths: {sizes}")
        return Columns(where, list(row), {name: row[name] for name in have}, sizes[have[0]])
    # By row number, and no single row with objects in it.
    if have and all(isinstance(row[name], dict) and all(map(str.isdecimal, row[name])) for name in have):
        raise DataError(
            f"{where}: one object of columns by row number, as pandas writes it by default; write a row a line: "
            'to_json(FILE, orient="records", lines=True)'
        )
    found.add(row, where)
    return found.rows(where)


def _after_blanks(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    assert match is not None
    return match.end()


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1
