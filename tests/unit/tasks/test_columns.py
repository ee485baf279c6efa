"""Texts are text, owners are somebody, and a row that is at fault is named with its file."""

from __future__ import annotations

import datetime
import tracemalloc
from typing import Any

import pytest

from hpcfed.errors import DataError
from hpcfed.tasks.columns import codes_of, lists_of, owners_of, texts_of
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


def test_a_text_or_a_list_of_them():
    values = split(["one", [" two ", 3], 4, ["\u00f6"]])
    assert lists_of(values, "c", [1, 0, 2, 3], "task.choices") == [["two", "3"], ["one"], ["4"], ["\u00f6"]]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (None, "is missing; it holds a text, or a list of texts, none of them empty"),
        ([], "is an empty list; it holds a text, or a list of texts"),
        (" ", "holds an empty text"),
        (["a", ""], "holds an empty text"),
        (["a", None], "is missing"),
        (["a", ["b"]], "is no text but a list"),
        (["a", {"b": 1}], "an object with the keys b"),
        (["a", 1.5], "the number 1.5"),
        ({"text": ["a"]}, "an object with the keys text"),
        (True, "the truth value true"),
    ],
)
def test_what_is_no_list_of_texts(value: Any, says: str):
    with pytest.raises(DataError, match=r"1\.jsonl, row 2: column 'c'") as raised:
        lists_of(split(["a"], [["a"], value]), "c", range(3), "task.choices")
    assert says in str(raised.value)


@pytest.mark.parametrize(
    ("parts", "codes"),
    [
        ([["b", "a"], ["b", "c"]], [1, 0, 1, 2]),
        ([["a", "A", "a\0", "a "]], [1, 0, 2, 3]),
        ([[1, 2], [1.0, 0.5]], [1, 2, 1, 0]),
        ([[True, False]], [1, 0]),
    ],
)
def test_codes_of_distinct_values(parts: list[list[Any]], codes: list[int]):
    assert codes_of(split(*parts), "c", "task.group")[0].tolist() == codes


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ([["a"], ["b", None]], r"1\.jsonl, row 2: task\.group: column 'c' is missing"),
        ([["a", " "]], "row 2: task.group: column 'c' is missing"),
        ([[1.0, float("nan")]], "row 2: .* is missing"),
        ([[["a"]]], "column 'c' is a list; it must be a text or a number"),
        ([[{"a": 1}]], "column 'c' is an object"),
        ([["1"], [1]], "is a number here and text in"),
    ],
)
def test_what_has_no_code(parts: list[list[Any]], says: str):
    with pytest.raises(DataError, match=says):
        codes_of(split(*parts), "c", "task.group")


def test_long_texts_take_no_memory_of_the_longest():
    tracemalloc.start()
    try:
        assert codes_of(split(["x" * 10**6, *map(str, range(999))]), "c", "task.group")[0].max() == 999
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20e6  # an array of a thousand texts of a million characters: 4e9
