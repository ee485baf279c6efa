"""Columns inside columns: what a path finds in every kind of file, what is missing, and what is no object."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hpcfed.errors import DataError
from hpcfed.tasks.columns import lists_of, texts_of
from hpcfed.tasks.load import open_splits
from hpcfed.tasks.paths import feature_at, roots
from hpcfed.tasks.rows import Columns, Split


def split(*rows: Any, name: str = "a") -> Split:
    return Split([Columns("f", [name], {name: list(rows)}, len(rows))])


@pytest.mark.parametrize(
    ("value", "path", "found"),
    [
        ({"b": "x"}, "a.b", "x"),
        ({"b": {"c": 1}}, "a.b.c", 1),
        ({"b": ["x", "y"]}, "a.b", ["x", "y"]),  # a dict of lists, as datasets stores a list of objects
        ([{"b": "x"}, {"b": "y"}], "a.b", ["x", "y"]),
        ([{"b": {"c": ["x"]}}, {"b": {"c": ["y", "z"]}}], "a.b.c", [["x"], ["y", "z"]]),
        ([{"b": [{"c": "x"}, {"c": "y"}]}], "a.b.c", [["x", "y"]]),
        ([], "a.b", []),
        ({}, "a.b", None),
        ({"b": None}, "a.b.c", None),
        (None, "a.b", None),
    ],
)
def test_what_a_path_finds(value: Any, path: str, found: Any):
    assert split(value).column(path, "task.text") == [found]


def test_what_an_object_does_not_have_is_missing_where_others_have_it():
    there = split({"b": "x"}, {"c": "y"}, {"b": "z"})
    assert there.column("a.b", "x") == ["x", None, "z"]
    with pytest.raises(DataError, match=r"^f, row 2: column 'a\.b' is missing"):
        texts_of(there, "a.b", range(3))


def test_a_name_with_dots_that_is_there_is_that_column():
    part = Columns("f", ["a.b", "a", "x.y"], {"a.b": [1], "a": [{"b": 2}], "x.y": [{"z": 3}]}, 1)
    assert [Split([part]).column(name, "x") for name in ("a.b", "x.y.z")] == [[1], [3]]
    assert roots(["a.b.c", "d", "a.e"]) == ["a.b.c", "a.b", "a", "d", "a.e"]


@pytest.mark.parametrize(
    ("rows", "path", "says"),
    [
        ([{"b": 1}, "text"], "a.b", "row 2: column 'a' is text here and an object in f, row 1"),
        (["text"], "a.b", r"^f, row 1: task.text: 'a\.b': column 'a' is 'text', no object that has 'b'"),
        ([{"b": 5}], "a.b.c", "column 'a' is 5, no object that has 'c'"),
        ([[{"b": 5}, 7]], "a.b", "column 'a' is 7, no object"),
        ([{"text": 5}, {"start": 1}], "a.txt", r"f: no column 'a\.txt': no row of 'a' has 'txt'.*did you mean text\?"),
        ([[{"b": {"left": 5}}]], "a.b.c", "has 'c'.*known: left"),
        ([{"b": 5}, {"b": "5"}], "a.b", r"f, row 2: column 'a\.b' is text here and a number in f, row 1"),
        ([{"b": 5}], "c.b", r"f: no column 'c\.b'"),
    ],
)
def test_what_is_not_there_is_named(rows: list[Any], path: str, says: str):
    with pytest.raises(DataError, match=says):
        split(*rows).column(path, "task.text")


ROWS = [
    {"id": "1", "q": {"text": " who "}, "answers": {"text": ["a", "b"], "start": [0, 1]}, "other": 5},
    {"id": "2", "q": {"text": "when"}, "answers": {"text": ["c"], "start": [2]}, "other": 6},
]


@pytest.mark.parametrize("ending", ["jsonl", "json", "parquet"])
def test_files_keep_what_paths_begin_with(tmp_path: Path, ending: str):
    file = tmp_path / f"train.{ending}"
    if ending == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), file)
    elif ending == "json":
        file.write_text(json.dumps(ROWS))
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    there = open_splits(str(file), ["train"], "train", ["q.text", "answers.text"])["train"]
    assert texts_of(there, "q.text", [1, 0]) == ["when", "who"]
    assert lists_of(there, "answers.text", range(2), "task.label") == [["a", "b"], ["c"]]


def test_a_file_of_one_row_with_objects_is_that_row(tmp_path: Path):
    (tmp_path / "train.jsonl").write_text(json.dumps({"q": {"text": "who"}}))
    assert open_splits(str(tmp_path), ["train"], "train", ["q.text"])["train"].column("q.text", "x") == ["who"]
    (tmp_path / "train.jsonl").write_text(json.dumps({"q": {"0": "who", "1": "when"}}))
    with pytest.raises(DataError, match="columns by row number"):
        open_splits(str(tmp_path), ["train"], "train", ["q"])


def test_csv_has_no_columns_inside_columns(tmp_path: Path):
    (tmp_path / "train.csv").write_text('answers,q\n"{""text"": 1}",who\n')
    there = open_splits(str(tmp_path), ["train"], "train", ["answers.text", "q.text", "x.y"])["train"]
    with pytest.raises(DataError, match=r"train\.csv, row 1: .*'answers' is '.*', no object that has 'text'"):
        there.column("answers.text", "task.label")
    with pytest.raises(DataError, match=r"no column 'x\.y'"):
        there.column("x.y", "task.label")


LABEL = {"_type": "ClassLabel", "names": ["no", "yes"]}


@pytest.mark.parametrize(
    ("features", "name"),
    [
        ({"label": LABEL}, "label"),
        ({"a": {"label": LABEL}}, "a.label"),
        ({"a": {"_type": "List", "feature": {"label": LABEL}}}, "a.label"),
        ({"a": [{"label": LABEL}]}, "a.label"),
        ({"a": {"feature": {"label": LABEL}}}, "a.feature.label"),
        ({"a.label": LABEL, "a": {"label": None}}, "a.label"),
    ],
)
def test_class_names_inside_columns(features: dict[str, Any], name: str):
    assert feature_at(features, name) == LABEL
    assert feature_at(features, name + "x") is None and feature_at(features, "b.c.d") is None


def test_class_names_of_a_parquet_file_inside_a_column(tmp_path: Path):
    import datasets

    features = datasets.Features({"a": {"label": datasets.ClassLabel(names=["no", "yes"])}})
    datasets.Dataset.from_list([{"a": {"label": 1}}], features=features).to_parquet(tmp_path / "train.parquet")
    there = open_splits(str(tmp_path), ["train"], "train", ["a.label"])["train"]
    assert there.class_names("a.label") == ["no", "yes"] and there.column("a.label", "x") == [1]
    assert feature_at(features, "a.label").names == ["no", "yes"]
