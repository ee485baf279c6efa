"""Texts are text, owners are somebody, and a row that is at fault is named with its file."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from hpcfed.errors import DataError
from hpcfed.tasks.columns import owners_of, texts_of
from hpcfed.tasks.rows import Columns, Split


def split(*parts: list[Any]) -> Split:
    return Split([Columns(f"{i}.jsonl", ["c"], {"c": part}, len(part)) for i, part in enumerate(parts)])


def test_texts_as_they_stand():
    values = ["007", " NA ", "null", "", "Größe", "a\nb"]
    assert texts_of(split(values), "c", range(6)) == ["007", "NA", "null", "", "Größe", "a\nb"]
    assert texts_of(split([5, -7, 10**30]), "c", [2, 0]) == [str(10**30), "5"]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (["the", "film"], "a list of words or tokens"),
        ([1, 2], "a list"),
        ({"en": "x"}, "an object with the keys en"),
        ([{"role": "user", "content": "x"}], "the messages of a chat"),
        (b"x", "bytes"),
        (True, "truth value true"),
        (1.5, "the number 1.5"),
        (float("nan"), "the number nan"),
        (datetime.date(2020, 1, 1), "a date"),
        ("\ud800", "half a character"),
        (None, "is missing"),
    ],
)
def test_what_is_no_text(value: Any, says: str):
    with pytest.raises(DataError, match=r"1\.jsonl, row 2: column 'c'") as raised:
        texts_of(split([value], [value, value]), "c", [2])
    assert says in str(raised.value)


@pytest.mark.parametrize(
    ("parts", "owners"),
    [
        ([["b", "a"], ["b"]], ["b", "a", "b"]),
        ([[1, 2], [1.0]], ["1", "2", "1"]),
        ([["01", "1"]], ["01", "1"]),
        ([["None", "nan"]], ["None", "nan"]),
        ([[2**60, 2**60 + 1]], [str(2**60), str(2**60 + 1)]),
        ([["a.0", "a"]], ["a.0", "a"]),
    ],
)
def test_owners(parts: list[list[Any]], owners: list[str]):
    assert owners_of(split(*parts), "c").tolist() == owners


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ([["a"], ["b", None, ""]], r"1\.jsonl, row 2: column 'c', the owner, is missing \(2 rows name none\)"),
        ([["a", "  "]], r"0\.jsonl, row 2: .* \(1 row names none\)"),
        ([[1.0, float("nan")]], "row 2: .* is missing"),
        ([[1.5]], "is 1.5; an owner is a text or a whole number"),
        ([[["a"]]], "an owner is a text"),
        ([["1"], ["1.0"]], r"1\.jsonl, row 1: .* '1.0' here and '1' in 0\.jsonl, row 1"),
        ([["a", "a "]], "write an owner in one way"),
        ([["1"], [1]], "is a number here and text in"),
        ([[2.0**60]], "an owner is a text"),
        ([[True, False]], "is True; an owner is a text or a whole number"),
        ([["a\0"]], "an owner is a text"),
        ([["\u00e9"], ["e\u0301"]], "write an owner in one way"),
    ],
)
def test_what_is_no_owner(parts: list[list[Any]], says: str):
    with pytest.raises(DataError, match=says):
        owners_of(split(*parts), "c")
