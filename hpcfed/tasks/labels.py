"""Labels: what a value of a column says, which class 0 .. C-1 that is, and which examples a run uses.

Legend   a label is a number (1, 1.0, "1", " 01" and "1e0" are the same one) or a word, without the blanks around it;
         words are alike if they differ in case, blanks, hyphens and underscores only
Promise  which examples are drawn depends on the seed and the data alone (seeds.py), never on the rank or the run
"""

from __future__ import annotations

import datetime
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, did_you_mean
from ..seeds import derive, sample

Indices = NDArray[np.int64]
Label = int | float | str

_NUMBER = re.compile(r"[+-]?([0-9]{1,18}\.?[0-9]{0,18}|\.[0-9]{1,18})([eE][+-]?[0-9]{1,2})?")
_GENERIC = re.compile(r"(?:LABEL_)?([0-9]{1,9})", re.IGNORECASE)  # names that say a number only
_JOINT = re.compile(r"(?<=[^\W_])[\s_-]+(?=[^\W_])")  # between the words of a name
_TRUTH = {"false": 0, "true": 1}
_NEGATION = re.compile(r"(not?|non)\b")  # how a class begins that is what "true" does not say


@dataclass(frozen=True)
class Classes:
    """labels: names of the classes 0 .. C-1.  numbers: which class a number in the data is.

    words: which class a word is, by alike(word).
    """

    labels: list[str]
    numbers: Mapping[int, int]
    words: Mapping[str, int]

    @staticmethod
    def named(labels: Sequence[str]) -> Classes:
        """Classes whose numbers are their places."""
        return Classes(list(labels), {i: i for i in range(len(labels))}, {alike(s): i for i, s in enumerate(labels)})


def alike(name: str) -> str:
    """What names that are spelt alike have in common: "Not-Spam", "not_spam" and "NOT SPAM" give "not spam"."""
    plain = unicodedata.normalize("NFKC", name).strip().casefold()
    plain = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in plain)
    return _JOINT.sub(" ", plain)


def label_of(value: Any) -> Label | None:
    """The label that a value is: a number (a whole one as int) or a word; None: missing.  ValueError: it is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        text = value.strip()
        return (_whole(Decimal(text)) if _NUMBER.fullmatch(text) else text) if text else None
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating | Decimal):
        return _whole(value)
    if isinstance(value, datetime.date | datetime.time):
        return str(value)
    raise ValueError(f"label {value!r} is a {type(value).__name__}, no number and no word")


def _whole(number: Any) -> int | float:
    return int(number) if math.isfinite(number) and number == int(number) else float(number)


def distinct(values: Sequence[Any], where: str) -> Iterator[tuple[int, Any, Label | None]]:
    """(row from 1, value, label) of the first row with each value. DataError with the row for one that is no label."""
    seen = set()
    for row, value in enumerate(values, 1):
        try:
            known = (type(value), value) in seen
            seen.add((type(value), value))
            said = None if known else label_of(value)
        except (TypeError, ValueError):  # lists and objects cannot be looked up
            raise DataError(
                f"{where}, row {row}: label {value!r} is a {type(value).__name__}, no number and no word"
            ) from None
        if isinstance(said, str) and not said.isprintable() and any("\ud800" <= c <= "\udfff" for c in said):
            raise DataError(f"{where}, row {row}: label {value!a} is no text: it holds half a character")
        if not known:
            yield row, value, said


def class_names(columns: Sequence[tuple[str, Sequence[Any]]]) -> list[int] | list[str]:
    """The classes of a column that declares none: its whole numbers, in their order, or its words, by their spelling.

    columns: of each split, how messages call it and its labels.  Raises DataError with the row.
    """
    first: dict[Label, str] = {}
    for where, values in columns:
        for row, _, said in distinct(values, where):
            if said is not None:
                first.setdefault(said, f"{where}, row {row}")
    numbers = [said for said in first if not isinstance(said, str)]
    if len(numbers) == len(first):
        for said in numbers:
            if not isinstance(said, int):
                raise DataError(f"{first[said]}: label {said!r} is no whole number; classes are whole numbers or words")
        return sorted(int(said) for said in numbers)
    spelt: dict[str, Label] = {}
    for said in first:
        other = spelt.setdefault(alike(str(said)), said)
        if other != said:
            raise DataError(
                f"{first[said]}: label {said!r} is spelt {other!r} in {first[other]}; spell a class in one way"
            )
    return sorted(str(said) for said in first)


def class_indices(
    values: Sequence[Any],
    classes: Classes,
    where: str,
    names: Sequence[str] | None = None,
    unlabelled: Sequence[Any] = (),
) -> Indices:
    """int64 [n] class of each row, -1 for those that say one of `unlabelled`: nobody knows.

    names: what the data set itself calls the numbers 0, 1, ... in this column, if it does; then -1 is no label, too.
    Raises DataError with the row (counted from 1) for anything that is none of the classes.
    """
    numbers = classes.numbers if names is None else _renumbered(names, classes, where)
    nobody = {*unlabelled, *(() if names is None else (-1,))}
    index: dict[tuple[type, Any], int] = {}
    said_numbers = set()
    for row, value, said in distinct(values, where):
        number = _truth(said, classes, numbers) if isinstance(said, str) else said
        word = value if isinstance(value, str) else None if said is None or isinstance(said, int) else str(said)
        found = None if word is None else classes.words.get(alike(word))
        if found is None and isinstance(number, int):
            found = numbers.get(number)
        if found is None and said in nobody:
            found = -1
        if found is None:
            raise DataError(f"{where}, row {row}: {_complaint(value, said, classes, numbers)}")
        index[type(value), value] = found
        if isinstance(said, int):
            said_numbers.add(said)
    if -1 in nobody and -1 in said_numbers:
        _check_shifted(said_numbers, classes, numbers, where)
    return np.fromiter((index[type(value), value] for value in values), np.int64, len(values))


def _truth(said: str, classes: Classes, numbers: Mapping[int, int]) -> int | None:
    """The number that a truth value is, of two classes of which the second is no negation."""
    if sorted(numbers) != [0, 1] or _NEGATION.match(alike(classes.labels[numbers[1]])):
        return None
    return _TRUTH.get(alike(said))


def _renumbered(names: Sequence[str], classes: Classes, where: str) -> Mapping[int, int]:
    """Which class each number of a column is that calls them `names`: by name; names that are numbers are numbers."""
    found = [classes.words.get(alike(name)) for name in names]
    if all(i is None for i in found):
        numbered = [_GENERIC.fullmatch(name.strip()) for name in names]
        found = [classes.numbers.get(int(match[1])) if match else None for match in numbered]
    known = {number: i for number, i in enumerate(found) if i is not None}
    if len(set(known.values())) == len(known) and len(known) in (len(names), len(classes.labels)):
        return known
    raise DataError(
        f"{where}: the data set calls its classes {spell(names)}, the task {spell(classes.labels)}; name them alike"
    )


def _check_shifted(said: set[int], classes: Classes, numbers: Mapping[int, int], where: str) -> None:
    """DataError if -1 is a class of its own by the look of the numbers: -1 and 1, or -1 to C - 2."""
    count = len(classes.labels)
    if said == set(range(-1, count - 1)) or (count == 2 and said == {-1, 1}):
        right = ", ".join(f"{number} for {classes.labels[i]}" for number, i in sorted(numbers.items())[:4])
        raise DataError(
            f"{where}: its labels are {', '.join(map(str, sorted(said)))}, but -1 says that nobody knows a row's "
            f"label; write {right}, or the names"
        )


def _complaint(value: Any, said: Label | None, classes: Classes, numbers: Mapping[int, int]) -> str:
    if said is None:
        return "the label is missing"
    allowed = "must be " + _ranged(sorted(numbers)) if numbers else f"must be one of {spell(classes.labels)}"
    if isinstance(said, int):
        return f"label {said} is out of range; {allowed}"
    return f"label {value!r} " + (
        f"is no class{did_you_mean(said, classes.labels)}" if isinstance(said, str) else allowed
    )


def _ranged(numbers: Sequence[int]) -> str:
    if numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]} to {numbers[-1]}"
    return "one of " + spell([str(number) for number in numbers])


def spell(names: Sequence[str], most: int = 8) -> str:
    """Some names, for a message: the first ones and how many more there are."""
    more = f", ... ({len(names) - most} more)" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def few_shot(labels: Indices, classes: Sequence[str], k: int, seed: int, where: str) -> Indices:
    """Rows of `k` examples of every class, in the data set's order."""
    rows: list[int] = []
    for c, name in enumerate(classes):
        of_class = np.flatnonzero(labels == c)
        if len(of_class) < k:
            raise DataError(f"task.few_shot={k}: {where} has only {len(of_class)} examples of class {name!r}")
        rows += of_class[sample(derive(seed, "few_shot", c), len(of_class), k)].tolist()
    return np.array(sorted(rows), np.int64)


def limited(rows: Indices, limit: int | None, seed: int, purpose: str) -> Indices:
    """At most `limit` of `rows`, drawn at random, in the data set's order."""
    if limit is None or limit >= len(rows):
        return rows
    return rows[sorted(sample(derive(seed, purpose), len(rows), limit))]
