"""Texts and owners: what the values of a column must be to be taken for them.

Promise  a text is a text: what is a list, an object, a message of a chat, bytes or a fraction is refused by row and
         column, with what would be right, and never trained on as Python writes it; nobody is no owner
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .rows import Split, type_name


def texts_of(split: Split, column: str, rows: Iterable[int], absent: bool = False) -> list[str]:
    """The texts in some rows of a column, without blanks around them; whole numbers are taken as they are written.

    absent: a missing text is an empty one.
    """
    values = split.column(column, "task.text")
    return ["" if absent and values[i] is None else _text(values[i], split, int(i), column) for i in rows]


def lists_of(split: Split, column: str, rows: Iterable[int], setting: str) -> list[list[str]]:
    """The texts in some rows of a column that holds one, or a list of them; none is empty, and no list."""
    values = split.column(column, setting, one_type=False)
    return [list_of(values[i], split, int(i), column) for i in rows]


_TEXTS = "it holds a text, or a list of texts, none of them empty"


def list_of(value: Any, split: Split, row: int, column: str) -> list[str]:
    """The texts in the value that some row of a column holds: one, or a list of them."""
    if value is None or value == []:
        what = "missing" if value is None else "an empty list"
        raise DataError(f"{split.at(row)}: column {column!r} is {what}; {_TEXTS}")
    texts = [_text(part, split, row, column) for part in (value if isinstance(value, list) else [value])]
    if not all(texts):
        raise DataError(f"{split.at(row)}: column {column!r} holds an empty text; {_TEXTS}")
    return texts


def codes_of(split: Split, column: str, setting: str) -> tuple[NDArray[np.int64], list[str]]:
    """The number of each row's value among the distinct ones, int64 [n]; and these, sorted as text: 1 and 1.0 are one.

    DataError for a row without one, or with a list or an object.
    """
    said = []
    for row, value in enumerate(split.column(column, setting)):
        if _is_nobody(value) or not isinstance(value, str | int | float):
            what = "missing" if _is_nobody(value) else f"{type_name(type(value))}; it must be a text or a number"
            raise DataError(f"{split.at(row)}: {setting}: column {column!r} is {what}")
        said.append(str(int(value) if isinstance(value, float) and value.is_integer() else value))
    # Not np.unique: an array of texts takes for each as much as the longest, gigabytes for the passages of squad.
    codes = {text: code for code, text in enumerate(sorted(set(said)))}
    return np.array([codes[text] for text in said], np.int64), list(codes)


def _text(value: Any, split: Split, row: int, column: str) -> str:
    if isinstance(value, str):
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as e:
                raise DataError(
                    f"{split.at(row)}: column {column!r} is no text: {e.object[e.start]!a} is half a character"
                ) from None
        return value.strip()
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value is None:
        raise DataError(f"{split.at(row)}: column {column!r} is missing")
    raise DataError(f"{split.at(row)}: column {column!r} is no text but {_what(value)}")


def _what(value: Any) -> str:
    """What a value is, and what would be right."""
    if isinstance(value, list) and value and all(isinstance(part, dict) and "content" in part for part in value):
        return "the messages of a chat; write the text that the model should see"
    if isinstance(value, list):
        kinds = {type(part) for part in value}
        what = "a list of words or tokens" if kinds == {str} else "a list"
        return f"{what}; write them as one text"
    if isinstance(value, dict):
        keys = ", ".join(map(str, list(value)[:5]))
        return f"an object with the keys {keys}; give the text a column of its own"
    if isinstance(value, bytes):
        return "bytes; store it as a string column"
    if isinstance(value, bool):
        return f"the truth value {str(value).lower()}; write it in quotes"
    if isinstance(value, float):
        return f"the number {value!r}, which may have been written otherwise; write it in quotes"
    return f"a {type(value).__name__}; store it as a string column"


def owners_of(split: Split, column: str) -> NDArray[np.str_]:
    """[n] the owner of each row, as text: 1 and 1.0 are one. DataError for rows without one, and for what may be one
    owner written in two ways.
    """
    values = split.column(column, "clients.id_column")
    missing = [i for i, value in enumerate(values) if _is_nobody(value)]
    if missing:
        count = "1 row names" if len(missing) == 1 else f"{len(missing):,} rows name"
        raise DataError(
            f"{split.at(missing[0])}: column {column!r}, the owner, is missing ({count} none); fill it in or leave "
            "such rows out"
        )
    owners: list[str] = []
    first: dict[str, int] = {}
    for row, value in enumerate(values):
        name = _owner(value, split, row, column)
        first.setdefault(name, row)
        owners.append(name)
    _check_spelling(split, column, first)
    return np.array(owners)


def _is_nobody(value: Any) -> bool:
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def _owner(value: Any, split: Split, row: int, column: str) -> str:
    if isinstance(value, str | int) and not isinstance(value, bool) and "\0" not in str(value):
        return str(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    raise DataError(
        f"{split.at(row)}: column {column!r}, the owner, is {value!r:.80}; an owner is a text or a whole number"
    )


def _check_spelling(split: Split, column: str, first: dict[str, int]) -> None:
    seen: dict[str, str] = {}
    for name, row in first.items():
        bare = unicodedata.normalize("NFKC", name).strip()
        head, dot, tail = bare.partition(".")
        bare = head if dot and head.lstrip("-").isdecimal() and not tail.strip("0") else bare
        other = seen.setdefault(bare, name)
        if other != name:
            raise DataError(
                f"{split.at(row)}: column {column!r}, the owner, is {name!r} here and {other!r} in "
                f"{split.at(first[other])}; write an owner in one way"
            )
