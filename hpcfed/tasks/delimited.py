"""CSV and TSV files: a header, then a row of text values a record. Nothing is guessed: "007", "NA" and "true" are text.

    .csv   RFC 4180: fields with commas, quotes or line ends stand in quotes, and a quote in them is doubled
    .tsv   a tab ends a field, a line end a row, and a quote is a character like others, as in GLUE's files; unless
           each quote of the file stands where a writer of CSV would have put it (pandas with sep="\\t", Excel, which
           quotes what has a comma), or rows only come out whole that way

Promise  every record is a row or an error that names its line; an empty field is a missing value; two readings of a
         file that cannot be told apart are an error. No record swallows its neighbours (swallowed.py).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from ..errors import DataError
from .lines import BOM, lines, opened
from .rows import Columns
from .swallowed import Swallowed
from .tree import Node

_NAMES = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "vertical bars"}
_MARK = BOM.decode()
_CR = "a CR alone ends a line here, where others end in LF or CRLF; let all lines end alike"
csv.field_size_limit(2**31 - 1)  # a document may be longer than the module's 128 kB


def read_csv(file: Node, wanted: Sequence[str]) -> Columns:
    """The wanted columns of a .csv file."""
    with opened(file) as raw:
        return _quoted(raw, file.where, ",", wanted)


def read_tsv(file: Node, wanted: Sequence[str]) -> Columns:
    """The wanted columns of a .tsv file."""
    quotes = _Quotes()
    with opened(file) as raw:
        plain = _plain(raw, file.where, wanted, quotes)
    if isinstance(plain, Columns) and not quotes.of_a_writer and not quotes.around_header:
        return plain
    if not quotes.any:
        raise _error(plain)
    try:
        with opened(file) as raw:
            return _quoted(raw, file.where, "\t", wanted)
    except DataError as e:
        if isinstance(plain, Columns):
            if quotes.around_header:
                raise
            return plain
        raise DataError(f"{_error(plain)}; nor is it, with quotes around fields: {e}") from None


def _error(plain: Columns | DataError) -> DataError:
    assert isinstance(plain, DataError)
    return plain


class _Quotes:
    """Whether the quotes of a file are those that a writer of CSV puts.

    It quotes what has a quote in it, and doubles that; or all of a column, header included; or what has a comma in it,
    all of that and nothing else.
    """

    def __init__(self) -> None:
        self.any = self.stray = self.doubled = self.needless = self.bare_comma = False
        self.header: list[bool] = []
        self.bare: list[bool] = []  # of each column: whether a field in it has no quotes

    def see(self, fields: list[str], header: bool) -> None:
        quoted = [len(field) > 1 and field[0] == '"' == field[-1] for field in fields]
        if header:
            self.header, self.bare = quoted, [False] * len(fields)
        for i, (field, is_quoted) in enumerate(zip(fields, quoted, strict=True)):
            self.bare_comma |= "," in field and not is_quoted
            if '"' in field:
                self.any = True
                self.needless |= "," not in field and '""' not in field[1:-1]
                inner = field[1:-1].replace('""', "")
                self.stray |= not is_quoted or '"' in inner
                self.doubled |= is_quoted and '""' in field[1:-1]
            elif i < len(self.bare):
                self.bare[i] = True

    @property
    def of_a_writer(self) -> bool:
        """Quotes are marks around fields, and no characters of them."""
        whole = any(head and not bare for head, bare in zip(self.header, self.bare, strict=True))
        commas = not self.needless and not self.bare_comma
        return self.any and not self.stray and (self.doubled or whole or commas)

    @property
    def around_header(self) -> bool:
        """Each name in the header stands in quotes."""
        return bool(self.header) and all(self.header)


def _plain(raw: BinaryIO, where: str, wanted: Sequence[str], quotes: _Quotes) -> Columns | DataError:
    """The columns without any quoting, or why there are none; all of `quotes` is seen before an error is returned."""
    header: list[str] = []
    found, problem = _Found(where, "\t", wanted), None
    for number, line in enumerate(lines(raw, where), 1):
        text = line.rstrip("\r\n")
        if not text or (text.isspace() and "\t" not in text):
            continue
        fields = text.split("\t")
        if not header or '"' in text or "," in text or any(quotes.header):
            quotes.see(fields, not header)
        if not header:
            header = fields
            found.begin(header)
            continue
        if problem is None:
            problem = found.add(fields, number, number)
    return found.columns() if problem is None else problem


def _lines(first: int, last: int) -> str:
    return f"line {first}" if first == last else f"lines {first} to {last}, which quotes join"


class _Found:
    """Collects the wanted columns, record by record, and checks their number of fields."""

    def __init__(self, where: str, separator: str, wanted: Sequence[str]) -> None:
        self._where, self._separator, self._wanted = where, separator, wanted
        self._header: list[str] = []
        self._places: list[tuple[list[str | None], int]] = []
        self._columns: dict[str, list[str | None]] = {}
        self._count = 0

    def begin(self, header: list[str]) -> None:
        """The first record. DataError if it is no header."""
        first = self._separator.join(header)
        if re.fullmatch(r"sep=.?", first, re.IGNORECASE):
            raise DataError(f"{self._where}, line 1: {first.rstrip()} is a line for Excel, and no header; leave it out")
        for name in self._wanted:
            if header.count(name) > 1:
                raise DataError(f"{self._where}: its header has column {name!r} {header.count(name)} times")
            if name in header:
                self._columns[name] = []
        self._header = header
        self._places = [(column, header.index(name)) for name, column in self._columns.items()]

    def add(self, fields: list[str], first: int, last: int) -> DataError | None:
        """A record on lines first to last; what is wrong with it."""
        if len(fields) != len(self._header):
            return DataError(
                f"{self._where}, {_lines(first, last)}: {len(fields)} fields, where the header names "
                f"{len(self._header)} columns ({', '.join(self._header)}); they are separated by "
                f"{_NAMES[self._separator]}" + (f"; {_CR}" if any("\r" in field for field in fields) else "")
            )
        if fields == self._header:
            return DataError(f"{self._where}, line {first}: the header once more; leave it out")
        if fields[0].startswith(_MARK):
            return DataError(f"{self._where}, line {first}: begins with a byte order mark, as if another file began")
        for column, place in self._places:
            column.append(fields[place] or None)
        self._count += 1
        return None

    def columns(self) -> Columns:
        return Columns(self._where, self._header, self._columns, self._count, self._hint())

    def _hint(self) -> str:
        """What may be the matter if the wanted columns are not there."""
        if len(self._header) == 1:
            for separator, name in _NAMES.items():
                if separator != self._separator and separator in self._header[0]:
                    ending = {"\t": "; let its name end in .tsv", ",": "; let its name end in .csv"}.get(separator, "")
                    return f"; its fields are separated by {name}, not by {_NAMES[self._separator]}{ending}"
        for name in self._wanted:
            for known in self._header if name not in self._header else ():
                if "".join(filter(str.isprintable, known)).strip() == name:
                    return f"; the header has {known!a}, with blanks or signs that cannot be seen"
        return "" if self._columns else "; the first line is taken for the header: is there none?"

    def column(self, name: str) -> list[str | None]:
        """All values of a wanted column."""
        return self._columns[name]

    @property
    def places(self) -> dict[str, int]:
        """Wanted column -> its place in a record."""
        return {name: self._header.index(name) for name in self._columns}


def _quoted(raw: BinaryIO, where: str, separator: str, wanted: Sequence[str]) -> Columns:
    """Read as RFC 4180 says. DataError for what it does not allow, and for a field that swallows rows."""
    found, header, kept = _Found(where, separator, wanted), list[str](), list[str]()
    swallowed: Swallowed | None = None

    def remembered() -> Iterator[str]:
        for line in lines(raw, where):
            kept.append(line)
            yield line

    reader = csv.reader(remembered(), delimiter=separator, strict=True)
    while True:
        kept.clear()
        first = reader.line_num + 1
        try:
            fields = next(reader, None)
        except csv.Error as e:
            raise DataError(_malformed(where, first, reader.line_num, kept, str(e))) from None
        if fields is None:
            break
        if len(fields) < 2 and not "".join(fields).strip() and len(header) != 1:
            continue
        if not header:
            header = fields
            found.begin(header)
            swallowed = Swallowed(separator, len(header), found.places, kept)
            continue
        if problem := found.add(fields, first, reader.line_num):
            raise _with_backslashes(problem, kept)
        assert swallowed is not None
        swallowed.see(kept, first)
    if swallowed and (record := swallowed.suspicious(found.column)):
        raise DataError(
            f"{where}, lines {record[0]} to {record[1]}: quotes join these lines to one row, but there are rows among "
            "them, as it seems; double the quotes that belong to texts, and put those texts in quotes; if it is one "
            'row, put all texts of the file in quotes, header included ("text"), or convert it to .jsonl'
        )
    return found.columns()


def _malformed(where: str, first: int, last: int, kept: Sequence[str], why: str) -> str:
    if "new-line character" in why:
        return f"{where}, {_lines(first, last)}: {_CR}"
    if "unexpected end" in why:
        return f"{where}, line {first}: a quote opens a field here and none closes it; a quote in a text is doubled"
    lines = _lines(first, last)
    if any('\\"' in line for line in kept):
        return str(_with_backslashes(DataError(f"{where}, {lines}: {why}"), kept))
    return f"{where}, {lines}: {why}; a field with a quote in it stands in quotes, and its own are doubled"


def _with_backslashes(problem: DataError, kept: Sequence[str]) -> DataError:
    if not any('\\"' in line for line in kept):
        return problem
    return DataError(f'{problem}; a quote in a text is doubled (""), not written with a backslash (\\")')
