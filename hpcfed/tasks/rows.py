"""Rows of a data set as they stand there: columns of plain Python values, and where each row is from.

Promise  a value is what the file says: text stays the text, character by character, a number the number; what a file
         does not say is None. What a column is taken for is decided by who asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any, TypeVar

from ..errors import DataError, did_you_mean
from .paths import inside, root, unknown

T = TypeVar("T")


class Rows:
    """Rows of one file.  where: how messages call it.  names: of the columns.  left_out: reason -> files or rows."""

    image: str | None = None  # the column that holds pictures
    folders: list[str] | None = None  # of pictures: the folder that each lies in

    def __init__(self, where: str, names: Sequence[str], count: int) -> None:
        self.where, self.names, self._count = where, list(names), count
        self.left_out: dict[str, int] = {}

    def __len__(self) -> int:
        return self._count

    def column(self, name: str) -> Sequence[Any]:
        """All values of a column of `names`."""
        raise NotImplementedError

    def class_names(self, name: str) -> list[str] | None:
        """What the data set calls the classes that a column's numbers mean, if it says so."""
        return None

    def number(self, i: int) -> str:
        """How messages number row i."""
        return str(i + 1)

    def picture(self, i: int) -> Any:
        """Pillow's image of row i. Raises OSError if there is none that Pillow can read."""
        raise NotImplementedError

    def hint(self, wanted: Sequence[str]) -> str:
        """What may be the matter if there is none of the columns that are wanted."""
        return ""


class Columns(Rows):
    """Rows whose wanted columns are in memory.  columns: some of `names`, a list of values each."""

    def __init__(
        self, where: str, names: Sequence[str], columns: Mapping[str, list[Any]], count: int, hint: str = ""
    ) -> None:
        super().__init__(where, names, count)
        self._columns, self._hint = columns, hint

    def column(self, name: str) -> Sequence[Any]:
        return self._columns[name]

    def hint(self, wanted: Sequence[str]) -> str:
        return self._hint


@dataclass(frozen=True)
class Reading:
    """What was read of a split.  files: (how messages call it, rows).  kept: examples.  left_out: reason -> rows."""

    files: tuple[tuple[str, int], ...]
    kept: int
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """In all files."""
        return sum(count for _, count in self.files)

    def data(self) -> dict[str, Any]:
        """What partition.json holds."""
        return {"files": len(self.files), "rows": self.rows, "kept": self.kept, "left_out": dict(self.left_out)}

    def line(self, split: str, may_tell: bool = True, most: int = 3) -> str:
        """In one line: train: 60 rows of data/train.jsonl.  may_tell: else without numbers of rows."""
        if not may_tell:
            some = ", ".join(where for where, _ in self.files[:most])
            return f"{split}: {some}" + (f" and {len(self.files) - most:,} more" if len(self.files) > most else "")
        named = [f"{count:,} rows of {where}" for where, count in self.files[:most]]
        if len(self.files) > most:
            named = [f"{self.rows:,} rows of {len(self.files):,} files, {self.files[0][0]} to {self.files[-1][0]}"]
        reasons = [f"{count:,} left out ({reason})" for reason, count in self.left_out.items() if count]
        return f"{split}: {', '.join([*named, *reasons])}" + (f", {self.kept:,} kept" if reasons else "")


def joined(readings: Sequence[Reading]) -> Reading:
    """What was read of all."""
    left_out: dict[str, int] = {}
    for reading in readings:
        for reason, count in reading.left_out.items():
            left_out[reason] = left_out.get(reason, 0) + count
    return Reading(tuple(f for reading in readings for f in reading.files), sum(r.kept for r in readings), left_out)


@dataclass(frozen=True)
class Split:
    """Rows of one split, file after file.  notes: what the user should know of how it was found."""

    parts: list[Rows]
    notes: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """How messages call it."""
        named = ", ".join(part.where for part in self.parts[:3])
        return named + (f" and {len(self.parts) - 3} more" if len(self.parts) > 3 else "")

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    @property
    def folders(self) -> list[str] | None:
        """Of pictures in folders: the folder that each lies in."""
        if any(part.folders is None for part in self.parts):
            return None
        return [name for part in self.parts for name in part.folders or ()]

    def at(self, i: int) -> str:
        """How messages call row i: its file, and its number there from 1."""
        part, row = self._find(i)
        return f"{part.where}, row {part.number(row)}"

    def _find(self, i: int) -> tuple[Rows, int]:
        for part in self.parts:
            if i < len(part):
                return part, i
            i -= len(part)
        raise IndexError(i)

    def column(self, name: str, setting: str, one_type: bool = True) -> list[Any]:
        """All values of one column, or of what lies inside one (paths.py).  one_type: they must be.

        DataError with the columns there are if it is not one of them, or with the first row of another type.
        """
        names = [known for part in self.parts for known in part.names]
        if (outer := root(name, names)) != name and outer in names:
            values = self._inside(outer, name, setting)
            if one_type:
                self._check_type(name, values)
            return values
        have = [part for part in self.parts if name in part.names]
        if not have:
            names = list(dict.fromkeys(names))
            hint = self.parts[0].hint([name])
            raise DataError(
                f"{self.where}: no column {name!r}{did_you_mean(name, names)}; {setting} names another{hint}"
            )
        for part in self.parts:
            if name not in part.names:
                raise DataError(f"{part.where}: no column {name!r}, which {have[0].where} has; {setting} names another")
        values = [value for part in self.parts for value in part.column(name)]
        if one_type:
            self._check_type(name, values)
        return values

    def _inside(self, outer: str, name: str, setting: str) -> list[Any]:
        path, found = name.removeprefix(outer + ".").split("."), []
        values = self.column(outer, setting)
        for i, value in enumerate(values):
            try:
                found.append(inside(value, path))
            except ValueError as e:
                raise DataError(f"{self.at(i)}: {setting}: {name!r}: column {outer!r} {e}") from None
        if wrong := unknown(values, path):
            raise DataError(
                f"{self.where}: no column {name!r}: no row of {outer!r} has {wrong}; {setting} names another"
            )
        return found

    def checked(self, values: Sequence[Any], check: Callable[[Sequence[Any], str], T]) -> T:
        """What `check` makes of (values of all rows, `where`); a DataError of it is of the file that it is about."""
        try:
            return check(values, self.where)
        except DataError:
            low = 0
            for part in self.parts if len(self.parts) > 1 else ():
                check(values[low : low + len(part)], part.where)
                low += len(part)
            raise

    def _check_type(self, name: str, values: Sequence[Any]) -> None:
        kinds = {kind: type_name(kind) for kind in set(map(type, values)) if kind is not type(None)}
        if len(set(kinds.values())) < 2:
            return
        first = next(i for i, value in enumerate(values) if value is not None)
        known = kinds[type(values[first])]
        other = next(i for i, value in enumerate(values) if value is not None and kinds[type(value)] != known)
        raise DataError(
            f"{self.at(other)}: column {name!r} is {kinds[type(values[other])]} here and {known} in {self.at(first)}; "
            "a column holds values of one type"
        )

    def class_names(self, name: str) -> list[str] | None:
        """What the data set calls the classes of a column, if it says so; DataError if two files say otherwise."""
        told = [part.class_names(name) for part in self.parts]
        for part, names in zip(self.parts, told, strict=True):
            if names != told[0]:
                raise DataError(
                    f"{part.where}: column {name!r} has other class names ({names}) than {self.parts[0].where} "
                    f"({told[0]}); the files of a split number their classes alike"
                )
        return told[0]

    def pictures(self, rows: Sequence[int]) -> Pictures | None:
        """The images of some rows, each read when it is asked for; None where no column holds any."""
        return None if any(part.image is None for part in self.parts) else Pictures(self.parts, rows)

    def left_out(self) -> dict[str, int]:
        """Reason -> files or rows that are none of the rows."""
        total: dict[str, int] = {}
        for part in self.parts:
            for reason, count in part.left_out.items():
                total[reason] = total.get(reason, 0) + count
        return total


class Pictures(Sequence[Any]):
    """Images of rows of several files; none is kept."""

    def __init__(self, parts: Sequence[Rows], rows: Sequence[int]) -> None:
        bounds = pairwise(accumulate(map(len, parts), initial=0))
        places = [(part, i) for part, (low, high) in zip(parts, bounds, strict=True) for i in range(high - low)]
        self._places = [places[row] for row in rows]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, i: Any) -> Any:
        part, row = self._places[i]
        return part.picture(row)


def type_name(kind: type) -> str:
    """What messages call values of a type."""
    if issubclass(kind, bool):
        return "true or false"
    if issubclass(kind, int | float):
        return "a number"
    named: dict[type, str] = {str: "text", list: "a list", dict: "an object", bytes: "bytes"}
    return named.get(kind, f"a {kind.__name__}")
