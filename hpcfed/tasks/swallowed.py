"""Finds rows that a stray quote of a CSV file swallowed: a quoted field that goes on over line ends which end records.

    "'tis good,1        two quotes that belong to texts: by RFC 4180 one row, whose text is all of these lines;
    bad film,0          to its author three rows
    a 27" screen",1

Legend   line end   one inside a quoted field
         beside     the wanted columns before and behind that field; those of free text say nothing
Formula  a line end ends a record if the line before it closes like one (columns behind the field, counted from the
         right) and the line after it begins like one (columns before it, from the left): with values that those
         columns have elsewhere, or, where a column's values seldom repeat, with a number or a word as they are
         a field is suspicious if two of its line ends do, or half of them; or if all do, three or more, whatever
         numbers or words they are: the rows of a class may lie side by side
Promise  a suspicious field is named. Prose has no such line ends, as a blank follows its commas. Where the writer puts
         quotes around all fields of the column, lines without quotes are no rows, and nothing is suspicious.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice, pairwise

_LONGEST = 200  # characters of a value that may stand beside a line end
_REPEATED = 4  # times that values occur on average, where all there are are known
_ALIKE = 3  # line ends of a field that all look like a record's
_CLASSES = 1000  # different values of a column that repeat, at most
_NUMBER = re.compile(r"[+-]?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")
_WORD = re.compile(r"[^\W\d][\w-]*")


@dataclass(frozen=True)
class _Line:
    """A line end that may end a record.  whole: the lines beside it have the header's number of fields.

    values: what stands in them in the wanted columns.
    """

    whole: bool
    values: Mapping[str, str]


@dataclass(frozen=True)
class _Span:
    """A field over several lines, and which of its line ends may end a record."""

    field: int
    first: int
    last: int
    ends: int
    like: Sequence[_Line]


class Swallowed:
    """Looks at each record of a file; then tells which is suspicious.

    separator: between fields.  columns: how many the header names.  places: wanted column -> its place.
    header: its lines.
    """

    def __init__(self, separator: str, columns: int, places: Mapping[str, int], header: Sequence[str]) -> None:
        self._separator, self._columns, self._places = separator, columns, places
        mark = re.escape(separator)
        self._field = re.compile(f'("[^"]*(?:""[^"]*)*"|[^{mark}\r\n]*)(?:{mark}|\r?\n|\r|$)')
        self._spans: list[_Span] = []
        self._bare: set[int] = set()  # columns with a field that has no quotes
        self._needless: Counter[int] = Counter()  # of each column: quoted fields that need no quotes
        self._all_quoted = {i for i, field in enumerate(self._fields(header)) if self._is_needless(field[1])}

    def _fields(self, record: Sequence[str]) -> list[re.Match[str]]:
        return list(islice(self._field.finditer("".join(record)), self._columns))

    def _is_needless(self, field: str) -> bool:
        return field[:1] == '"' and not any(c in field[1:-1] for c in ('"', "\n", "\r", self._separator))

    def see(self, record: Sequence[str], first: int) -> None:
        """The lines of a record, the number of the first."""
        if len(record) == 1 and (len(self._bare) == self._columns or '"' not in record[0]):
            self._bare.update(range(self._columns))
            return
        ends = list(accumulate(map(len, record)))[:-1]
        for i, field in enumerate(self._fields(record)):
            if field[1][:1] != '"':
                self._bare.update([i] if field[1] else [])
                continue
            low, high = bisect_right(ends, field.start()), bisect_right(ends, field.end(1))
            lines = [line.rstrip("\r\n") for line in record[low : high + 1] if line.strip()]
            like = [line for pair in pairwise(lines) if (line := self._like(i, *pair))]
            if like:
                self._spans.append(_Span(i, first, first + len(record) - 1, len(lines) - 1, like))
            self._needless[i] += self._is_needless(field[1])

    def _like(self, field: int, before: str, after: str) -> _Line | None:
        """The end of line `before`, if by its number of fields and their lengths it may end a record."""
        ended, begun = before.split(self._separator), after.split(self._separator)
        whole = len(ended) == self._columns, len(begun) == self._columns
        places = {name: place for name, place in self._places.items() if place != field}
        if not places:
            pieces = [*ended, *begun]
            return _Line(True, {}) if all(whole) and all(p and not p[0].isspace() for p in pieces) else None
        behind, in_front = (any(place > field for place in places.values()), any(p < field for p in places.values()))
        if (behind and len(ended) < self._columns) or (in_front and len(begun) < self._columns):
            return None
        values = {
            name: ended[place - self._columns] if place > field else begun[place] for name, place in places.items()
        }
        if not all(value and len(value) <= _LONGEST for value in values.values()):
            return None
        return _Line((whole[0] or not behind) and (whole[1] or not in_front), values)

    def suspicious(self, column: Callable[[str], Sequence[str | None]]) -> tuple[int, int] | None:
        """First and last line of a suspicious record, if there is one.  column: all values of a wanted column."""
        count = Counter(span.field for span in self._spans)
        spans = [
            span
            for span in self._spans
            if span.field in self._bare
            or (span.field not in self._all_quoted and self._needless[span.field] <= count[span.field])
        ]
        if not spans:
            return None
        kinds = {name: _Kind(column(name)) for name in self._places}
        for span in spans:
            sure = sum(_ends_record(line, kinds) for line in span.like)
            alike = sum(_ends_record(line, kinds, unseen=True) for line in span.like)
            if sure >= 2 or 2 * sure >= span.ends or (alike >= _ALIKE and alike == span.ends):
                return span.first, span.last
        return None


class _Kind:
    """What the values of a column are like."""

    def __init__(self, column: Sequence[str | None]) -> None:
        self.known = {value for value in column if value is not None}
        self._repeat = _REPEATED * len(self.known) <= len(column) and len(self.known) <= _CLASSES
        self._numbers = all(map(_NUMBER.fullmatch, self.known))
        self._words = all(map(_WORD.fullmatch, self.known))
        self._digits = max((len(value) for value in self.known if value.isdecimal()), default=0)

    def fits(self, value: str, unseen: bool) -> bool | None:
        """Whether it may be another value of the column; None if that cannot be said.  unseen: though others repeat."""
        if value in self.known or (self._repeat and not unseen):
            return value in self.known
        if self._numbers:
            return bool(_NUMBER.fullmatch(value)) and not (value.isdecimal() and len(value) > self._digits + 1)
        return bool(_WORD.fullmatch(value)) if self._words else None


def _ends_record(line: _Line, kinds: Mapping[str, _Kind], unseen: bool = False) -> bool:
    fits = {name: kinds[name].fits(value, unseen) for name, value in line.values.items()}
    telling = [name for name in fits if fits[name] is not None]
    known = all(line.values[name] in kinds[name].known for name in telling)
    return all(fits[name] for name in telling) and (known or line.whole) and bool(telling or not line.values)
