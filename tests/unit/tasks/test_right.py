"""Which candidates a column of labels names."""

from __future__ import annotations

from typing import Any

import pytest

from hpcfed.errors import DataError
from hpcfed.tasks.right import ALL, narrowed, right_of

WORDS, DIGITS = ["yes", "no"], ["1", "2", "3"]
READ: dict[str, tuple[list[tuple[Any, list[str], bool]], list[tuple[int, ...]]]] = {
    "texts": ([("no", WORDS, False), ("yes", WORDS, False)], [(1,), (0,)]),
    "numbers that a row has as a text too": ([("0", WORDS, False), ("1", DIGITS, False)], [(0,), (1,)]),
    "texts that a row has as a number too": ([("3", DIGITS, False), ("1", DIGITS, False)], [(2,), (0,)]),
    "numbers among numbers, out of the places": ([(3, DIGITS, True), (1, DIGITS, True)], [(2,), (0,)]),
    "a number among texts is a place": ([(1, DIGITS, False)], [(1,)]),
    "letters that a row has as a text too": ([("A", WORDS, False), ("B", ["O", "A", "B"], False)], [(0,), (1,)]),
    "small letters": ([("b", WORDS, False)], [(1,)]),
    "a float": ([(1.0, WORDS, False)], [(1,)]),
    "truth values": ([(True, ["True", "False"], False), (False, ["true", "false"], False)], [(0,), (1,)]),
    "a list": ([(["no", "yes", "no"], WORDS, False)], [(1, 0)]),
    "one way or the other, the same": ([("1", ["0", "1"], False)], [(1,)]),
}
UNREAD: dict[str, tuple[list[tuple[Any, list[str], bool]], str]] = {
    "a place or a text": ([("1", DIGITS, False)], "by its text that is '1', by its number '2', and no row tells"),
    "a place or a number": ([(2, DIGITS, True)], "by its text that is '2', by its number '3', and no row tells"),
    "another way than the others": ([("no", WORDS, False), ("1", WORDS, False)], "other rows name them by text"),
    "a truth value among words": ([(True, WORDS, False)], "says True, which is none of the candidates"),
    "a fraction": ([(0.5, WORDS, False)], "none of the candidates"),
    "an object": ([({"text": "no"}, WORDS, False)], "none of the candidates"),
    "a list of objects": ([([{"text": "no"}], WORDS, False)], "none of the candidates"),
    "a list of lists": ([([["no"]], WORDS, False)], "none of the candidates"),
    "an empty list": ([([], WORDS, False)], "its list is empty"),
}


def read(rows):
    ways = narrowed(ALL, rows)
    return [right_of(*row, ways, "row: column 'label'") for row in rows]


@pytest.mark.parametrize("what", READ)
def test_a_column_is_read_in_the_way_in_which_all_of_it_means_something(what):
    rows, right = READ[what]
    assert read(rows) == right


@pytest.mark.parametrize("what", UNREAD)
def test_what_is_none_of_the_candidates_or_may_be_two_is_named(what):
    rows, message = UNREAD[what]
    with pytest.raises(DataError, match=f"row: column 'label'.*{message}"):
        read(rows)
