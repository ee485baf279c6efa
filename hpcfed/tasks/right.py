"""Which of an example's candidates a label means.

    text      the candidate's own text
    number    its place, from 0
    letter    its place, from A

Promise  a column is read in one way, in which all of its labels mean something; where two ways are possible, they agree
         about every row, or the row is an error
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..errors import DataError
from .labels import label_of

Right = tuple[int, ...]
Ways = frozenset[str]


def _by_text(value: Any, texts: Sequence[str], numbers: bool) -> int | None:
    if isinstance(value, bool):
        spelt = [text.casefold() for text in texts]
        return spelt.index(str(value).casefold()) if spelt.count(str(value).casefold()) == 1 else None
    said = str(value).strip() if isinstance(value, str) or (isinstance(value, int) and numbers) else None
    return texts.index(said) if said is not None and texts.count(said) == 1 else None


def _by_number(value: Any, texts: Sequence[str], numbers: bool) -> int | None:
    said = label_of(value)
    return said if isinstance(said, int) and 0 <= said < len(texts) else None


def _by_letter(value: Any, texts: Sequence[str], numbers: bool) -> int | None:
    letters = string.ascii_uppercase[: len(texts)]
    said = value.strip().upper() if isinstance(value, str) else ""
    return letters.index(said) if len(said) == 1 and said in letters else None


_WAYS: Mapping[str, Callable[[Any, Sequence[str], bool], int | None]] = {
    "text": _by_text,
    "number": _by_number,
    "letter": _by_letter,
}
ALL: Ways = frozenset(_WAYS)


def meanings(value: Any, texts: Sequence[str], numbers: bool) -> dict[str, Right]:
    """Way -> candidates that a label, or a list of them, means by it; ways by which it means none are not there.

    numbers: the data have the candidates as numbers, so that a number may be one's text.
    """
    said = value if isinstance(value, list) else [value]
    found = {}
    for name, way in _WAYS.items():
        try:
            places = [way(one, list(texts), numbers) for one in said]
        except ValueError:  # lists and objects are no labels
            continue
        if places and None not in places:
            found[name] = tuple(dict.fromkeys(place for place in places if place is not None))
    return found


def narrowed(ways: Ways, rows: Iterable[tuple[Any, Sequence[str], bool]]) -> Ways:
    """Those of `ways` in which the rows can be read; it looks no further than to the last one.

    rows: (label, candidates, numbers) of each, see meanings. Those that cannot be read in any of the ways, which are
    errors where they are used, say nothing.
    """
    for row in rows:
        if len(ways) == 1:
            break
        ways = ways & frozenset(meanings(*row)) or ways
    return ways


def right_of(value: Any, texts: Sequence[str], numbers: bool, ways: Ways, what: str) -> Right:
    """The candidates that a label means, read in one of `ways`.  what: how messages call row and column.

    Raises DataError if it means none, or one in one way and another in another.
    """
    if isinstance(value, list) and not value:
        raise DataError(f"{what} names no candidate: its list is empty")
    found = meanings(value, texts, numbers)
    known = {way: right for way, right in found.items() if way in ways}
    if len(set(known.values())) > 1:
        (one, first), (other, second) = list(known.items())[:2]
        raise DataError(
            f"{what} says {value!r:.60}: by its {one} that is {texts[first[0]]!r:.60}, by its {other} "
            f"{texts[second[0]]!r:.60}, and no row tells which is meant; write letters from A, or texts alone"
        )
    if known:
        return next(iter(known.values()))
    shown = ", ".join(texts) if len(texts) <= 4 else f"{len(texts)} candidates"
    cure = f"write its text, its letter from A, or its number from 0 to {len(texts) - 1}"
    if found:
        cure = f"other rows name them by {' or '.join(sorted(ways))}"
    raise DataError(f"{what} says {value!r:.60}, which is none of the candidates ({shown:.120}): {cure}")
