"""Errors: all of hpcfed's own are one kind, a long one is one line, a mistyped name finds its neighbour."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcfed import errors
from hpcfed.errors import HpcfedError, did_you_mean, first_line


def test_a_user_can_catch_all_of_them_at_once():
    ours = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(ours) >= 7 and all(issubclass(kind, HpcfedError) and kind.__doc__ for kind in ours)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one\ntwo"), "one"),
        (ValueError("\n\n  one  \ntwo"), "one  "),
        (ValueError(), "ValueError"),
        (ValueError("  \n "), "ValueError"),
        (ValueError("x" * 301), "x" * 300),
        (KeyError("k"), "'k'"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (OSError(2, "No such file", "f"), "[Errno 2] No such file: 'f'"),
    ],
)
def test_the_first_line_of_known_errors(error: BaseException, line: str):
    assert first_line(error) == line


@given(st.text())
def test_a_first_line_is_one_short_line(text: str):
    line = first_line(RuntimeError(text))
    assert line and len(line) <= 300 and len(line.splitlines()) == 1
    assert line == "RuntimeError" or line in text


def test_the_nearest_name_and_all_of_them():
    known = ["rounds", "seed", "eval_every"]
    assert did_you_mean("round", known) == "; did you mean rounds? (known: eval_every, rounds, seed)"
    assert did_you_mean("zzz", iter(known)) == " (known: eval_every, rounds, seed)"
    assert did_you_mean("x", []) == " (known: )"


@given(st.lists(st.text("abcdef", min_size=4), min_size=1, max_size=5), st.data())
def test_a_name_that_is_known_is_its_own_neighbour(known: list[str], data: st.DataObject):
    name = data.draw(st.sampled_from(known))
    assert did_you_mean(name, known).startswith(f"; did you mean {name}? (known: ")
