"""What a run was begun with and goes on with: a note for each thing that differs, none for what nobody wrote down."""

from __future__ import annotations

from typing import Any

import pytest

from hpcfed.runs.env import env_changes

BEFORE = {
    "versions": {"python": "3.11", "hpcfed": "0.1", "torch": "2.9", "transformers": "5.2", "numpy": "2.1"},
    "cpu": "A", "cpu_capability": "AVX2", "gpu": None, "torch_threads": 2, "host": "one",
}  # fmt: skip


@pytest.mark.parametrize(
    ("now", "noted"),
    [
        ({}, []),
        ({"host": "two"}, []),
        ({"versions": {**BEFORE["versions"], "torch": "2.10"}}, ["torch was 2.9 and is 2.10"]),
        (
            {"versions": {**BEFORE["versions"], "numpy": "1", "hpcfed": "2"}},
            ["hpcfed was 0.1 and is 2", "numpy was 2.1 and is 1"],
        ),
        ({"cpu": "B"}, ["the processor was A and is B"]),
        ({"cpu_capability": "AVX512"}, ["what torch uses of the processor was AVX2 and is AVX512"]),
        ({"torch_threads": 1}, ["the number of threads was 2 and is 1"]),
        ({"gpu": "H100"}, ["the GPU was None and is H100"]),
        ({"versions": {"torch": "2.9"}}, []),
    ],
)
def test_a_note_for_each_change(now: dict[str, Any], noted: list[str]):
    notes = env_changes(BEFORE, BEFORE | now)
    assert [note.partition(":")[0] for note in notes] == noted


@pytest.mark.parametrize("old", [{}, {"versions": None}, {"versions": {}}, {"python": "3.11"}])
def test_an_older_env_says_nothing(old: dict[str, Any]):
    assert env_changes(old, BEFORE) == []
