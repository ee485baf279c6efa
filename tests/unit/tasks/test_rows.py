"""Rows of several files as one split: places, types and columns; and the line about what was read."""

from __future__ import annotations

from typing import Any

import pytest

from hpcfed.errors import DataError
from hpcfed.tasks.rows import Columns, Reading, Split, joined


def part(name: str, **columns: list[Any]) -> Columns:
    return Columns(name, list(columns), columns, len(next(iter(columns.values()))))


def test_rows_are_counted_in_their_own_file():
    split = Split([part("a", c=[1, 2]), part("b", c=[3])])
    assert [split.at(i) for i in range(3)] == ["a, row 1", "a, row 2", "b, row 1"] and len(split) == 3
    assert split.column("c", "x") == [1, 2, 3] and split.where == "a, b"

    def check(values: Any, where: str) -> None:
        if 3 in values:
            raise DataError(f"{where}, row {list(values).index(3) + 1}")

    with pytest.raises(DataError, match=r"^b, row 1$"):
        split.checked([1, 2, 3], check)


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ([part("a", c=[1]), part("b", d=[1])], "^b: no column 'c', which a has; task.text names another"),
        ([part("a", d=[1])], "^a: no column 'c'.*known: d"),
        ([part("a", c=[1]), part("b", c=["1"])], "^b, row 1: column 'c' is text here and a number in a, row 1"),
        ([part("a", c=["x", None, 5])], "^a, row 3: column 'c' is a number here and text in a, row 1"),
        ([part("a", c=[None, True, 1])], "^a, row 3: .* a number here and true or false in a, row 2"),
        ([part("a", c=[["x"], "x"])], "^a, row 2: .* text here and a list"),
    ],
)
def test_columns_that_differ_are_named(parts: list[Columns], says: str):
    with pytest.raises(DataError, match=says):
        Split(list(parts)).column("c", "task.text")


def test_numbers_are_of_one_type():
    assert Split([part("a", c=[1, 2.0, None])]).column("c", "x") == [1, 2.0, None]


def test_what_was_read_in_one_line():
    one = Reading((("a.csv", 60),), 50, {"no label": 10})
    assert one.line("train") == "train: 60 rows of a.csv, 10 left out (no label), 50 kept"
    assert one.line("train", may_tell=False) == "train: a.csv"
    many = joined([one, one, Reading((("b", 1), ("c", 1)), 2)])
    assert many.line("train") == "train: 122 rows of 4 files, a.csv to c, 20 left out (no label), 102 kept"
    assert many.data() == {"files": 4, "rows": 122, "kept": 102, "left_out": {"no label": 20}}
