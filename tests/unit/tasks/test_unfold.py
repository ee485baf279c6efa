"""SuperGLUE's official rows become the hub's, whose places in the file are known; other nesting is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpcfed.errors import DataError
from hpcfed.tasks.load import open_splits
from hpcfed.tasks.rows import Columns, Split
from hpcfed.tasks.unfold import MULTIRC, RECORD, WSC, Unfold

PASSAGE = "Ann met Bob. Ann left."


def answer(text: str, label: int | None = None) -> dict[str, Any]:
    return {"text": text} | ({} if label is None else {"label": label})


QUESTIONS = [
    {"question": "Who left?", "answers": [answer("Ann", 1), answer("Bob", 0)], "idx": 0},
    {"question": "Who stayed?", "answers": [answer("Bob", 1)], "idx": 1},
]
ONE_MORE = {"text": "Eve.", "questions": [{"question": "Who?", "answers": [answer("Eve")]}]}
ENTITIES = [{"start": 0, "end": 2}, {"start": 8, "end": 10}, {"start": 13, "end": 15}]  # the end is the last character
GAP = {"query": "@placeholder is gone.", "answers": [answer("Ann"), answer("Ann")], "idx": 7}


def split(*rows: dict[str, Any]) -> Split:
    names = list(dict.fromkeys(name for row in rows for name in row))
    return Split([Columns("f.jsonl", names, {name: [row.get(name) for row in rows] for name in names}, len(rows))])


def columns(flat: Split, *names: str) -> list[tuple[Any, ...]]:
    return list(zip(*(flat.column(name, "x", one_type=False) for name in names), strict=True))


def test_multirc():
    flat = MULTIRC.flat(split({"idx": 4, "passage": {"text": PASSAGE, "questions": QUESTIONS}}, {"passage": ONE_MORE}))
    assert columns(flat, "paragraph", "question", "answer", "label", "idx") == [
        (PASSAGE, "Who left?", "Ann", 1, 4),
        (PASSAGE, "Who left?", "Bob", 0, 4),
        (PASSAGE, "Who stayed?", "Bob", 1, 4),
        ("Eve.", "Who?", "Eve", None, None),
    ]
    assert [flat.at(i) for i in (0, 2, 3)] == [
        "f.jsonl, row 1, example 1 of it",
        "f.jsonl, row 1, example 3 of it",
        "f.jsonl, row 2",
    ]


def test_record():
    nested = {"passage": {"text": PASSAGE, "entities": ENTITIES}, "qas": [GAP, {"query": "q"}], "source": "news"}
    flat = RECORD.flat(split(nested))
    assert columns(flat, "passage", "query", "entities", "answers", "source") == [
        (PASSAGE, "@placeholder is gone.", ["Ann", "Bob"], ["Ann"], "news"),
        (PASSAGE, "q", ["Ann", "Bob"], [], "news"),
    ]


def test_wsc():
    target = {"span1_text": "Ann", "span2_text": "She", "span1_index": 0, "span2_index": 3}
    flat = WSC.flat(split({"text": "Ann ran. She fell.", "label": True, "idx": 3, "target": target}))
    assert columns(flat, "text", "span1_text", "span2_text", "label", "idx") == [
        ("Ann ran. She fell.", "Ann", "She", True, 3)
    ]
    assert flat.at(0) == "f.jsonl, row 1"


def test_what_is_flat_already_is_left_alone():
    flat = split({"paragraph": "p", "question": "q", "answer": "a", "label": 1})
    assert all(form.flat(flat) is flat for form in (MULTIRC, RECORD, WSC))


def passage(**changes: Any) -> dict[str, Any]:
    return {"passage": {"text": PASSAGE, "questions": QUESTIONS, "entities": ENTITIES} | changes, "qas": [GAP]}


@pytest.mark.parametrize(
    ("form", "row", "says"),
    [
        (MULTIRC, {"passage": "a text"}, "it has another shape"),
        (MULTIRC, {"passage": None}, "it has another shape"),
        (MULTIRC, {"passage": {"questions": QUESTIONS}}, "it has no 'text'"),
        (MULTIRC, {"passage": {"text": "p"}}, "it has no 'questions'"),
        (MULTIRC, passage(questions={"question": "q"}), "it has another shape"),
        (MULTIRC, passage(questions=[{"question": "q"}]), "it has no 'answers'"),
        (MULTIRC, passage(questions=[{"question": "q", "answers": ["Ann"]}]), "it has another shape"),
        (RECORD, {"qas": [GAP]}, "it has another shape"),
        (RECORD, passage(entities=[{"start": 0}]), "it has no 'end'"),
        (RECORD, passage(entities=[{"start": 0, "end": 22}]), "an entity from 0 to 22 in a passage of 22 characters"),
        (RECORD, passage(entities=[{"start": 5, "end": 4}]), "an entity from 5 to 4"),
        (RECORD, passage(entities=[{"start": -3, "end": 4}]), "an entity from -3 to 4"),
        (RECORD, passage(entities=[{"start": "0", "end": "4"}]), "it has another shape"),
        (RECORD, passage() | {"qas": [{"answers": []}]}, "it has no 'query'"),
        (RECORD, passage() | {"qas": None}, "it has another shape"),
        (WSC, {"text": "x", "target": {"span1_text": "a"}}, "it has no 'span2_text'"),
        (WSC, {"text": "x", "target": ["a", "b"]}, "it has another shape"),
    ],
)
def test_what_is_nested_otherwise_is_named(form: Unfold, row: dict[str, Any], says: str):
    good = passage() | {"text": "x", "target": {"span1_text": "a", "span2_text": "b"}}
    with pytest.raises(DataError, match=rf"^f\.jsonl, row 2: not nested as SuperGLUE's files are: {says}"):
        form.flat(split(good, row))


def test_a_file_of_one_official_row(tmp_path: Path):
    (tmp_path / "train.jsonl").write_text(json.dumps({"idx": 1, "passage": {"text": "p", "questions": QUESTIONS}}))
    wanted = ["paragraph", "question", "answer", "label", "idx", *MULTIRC.roots]
    flat = MULTIRC.flat(open_splits(str(tmp_path), ["train"], "train", wanted)["train"])
    assert columns(flat, "label", "idx") == [(1, 1), (0, 1), (1, 1)]
