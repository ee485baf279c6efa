"""Patterns: their files, but evaluation data are no training data, and a name is no pattern for one other file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpcfed.errors import DataError
from hpcfed.tasks.files import find
from tests.support.data import put

HELD_OUT = {
    "c/test.jsonl": "c/*.jsonl",
    "c/validation.jsonl": "c/*",
    "c/dev.jsonl": "c/*",
    "c/val.csv": "c/*",
    "c/valid_0.jsonl": "c/*.jsonl",
    "c/Eval.jsonl": "c/*",
    "c/testing.jsonl.gz": "c/*",
    "c/TEST.JSONL": "c/*",
    "c/test-00000-of-00001.parquet": "c/*",
    "c/validation_matched.jsonl": "c/*",
    "c/test2.jsonl": "c/*",
    "c/val-1.jsonl": "c/?*.jsonl",
    "test/b.jsonl": "*/*.jsonl",
    "more/dev/b.jsonl": "**/*.jsonl",
}


@pytest.mark.parametrize("name", HELD_OUT)
def test_evaluation_data_are_not_trained_on(tmp_path: Path, name: str):
    train, held_out = put(tmp_path / "c/a.jsonl", "{}"), put(tmp_path / name, "{}")
    there = find(f"{tmp_path}/{HELD_OUT[name]}", ["train"], "train")["train"]
    assert [node.where for _, node in there.files] == [str(train)]
    assert there.notes == (f"train: {held_out} fits the pattern but is not read: by name, no training data",)


@pytest.mark.parametrize(
    ("names", "pattern", "splits", "right"),
    [
        ("a test", "*", ["train", "test"], {"train": ["a"], "test": ["test"]}),
        ("a b dev", "*", ["train", "validation"], {"train": ["a", "b"], "validation": ["dev"]}),
        ("train test x", "*", ["train"], {"train": ["train"]}),
        ("contest attest evaluation developer tester validate", "*", ["train"], {
            "train": ["attest", "contest", "developer", "evaluation", "tester", "validate"],
        }),
        ("c1/test c2/test", "c*/test.jsonl", ["train"], {"train": ["c1/test", "c2/test"]}),
        ("test/a test/b", "test/*", ["train"], {"train": ["test/a", "test/b"]}),
        ("train x", "trai?.jsonl", ["train"], {"train": ["train"]}),
        ("train_0 train_1 test_0", "t*", ["train"], {"train": ["train_0", "train_1"]}),
    ],
)  # fmt: skip
def test_what_a_pattern_means(tmp_path: Path, names: str, pattern: str, splits: list[str], right: dict[str, list[str]]):
    for name in names.split():
        put(tmp_path / f"{name}.jsonl", "{}")
    there = find(f"{tmp_path}/{pattern}", splits, "train")
    stems = {
        s: [os.path.relpath(n.where, tmp_path).removesuffix(".jsonl") for _, n in f.files] for s, f in there.items()
    }
    assert stems == right


def test_evaluation_data_are_trained_on_by_their_name(tmp_path: Path):
    for name in ("test_a", "test_b", "test_0", "test_1"):
        put(tmp_path / f"{name}.jsonl", "{}")
    assert len(find(f"{tmp_path}/test_[ab]*", ["test"], "test")["test"].files) == 2
    assert len(find(f"{tmp_path}/test_[01]*", ["test"], "test")["test"].files) == 2
    with pytest.raises(DataError, match="no split 'train'"):
        find(f"{tmp_path}/*.jsonl", ["train"], "train")


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("client[1].jsonl", "client1.jsonl"),
        ("a[b]/train.jsonl", "ab/train.jsonl"),
        ("x[0-9].csv", "x7.csv"),
        ("why[12].jsonl", "why1.jsonl"),
        ("[x]", "x/train.jsonl"),
        ("run[!a].parquet", "runb.parquet"),
    ],
)
def test_a_name_is_no_pattern_for_one_other_file(tmp_path: Path, name: str, other: str):
    put(tmp_path / other, "{}")
    with pytest.raises(DataError, match=r"does not exist; as a pattern it would be .* alone"):
        find(f"{tmp_path}/{name}", ["train"], "train")
