"""Which files a name means: the one that is called so, whatever its characters, and no other."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from hpcfed.errors import DataError
from hpcfed.tasks.files import find, is_local
from tests.support.data import put

BOTH = ["train", "validation"]
ODD = ["run[1]", "a?b", "a*b", "a::b", "v$HOME", "~me", "a#b", "a b", 'it\'s "x"', "Größe", "%41", "file:x", "zip::x"]


def found(data: Path | str, splits: list[str] = BOTH, base: Path | None = None) -> dict[str, list[str]]:
    """Split -> its files, by their paths below `base`."""
    base = base or Path(data)
    there = find(str(data), splits, "train")
    return {split: [os.path.relpath(node.where, base) for _, node in one.files] for split, one in there.items()}


@pytest.mark.parametrize("name", ODD)
def test_a_path_that_exists_is_that_path(tmp_path: Path, name: str):
    for folder in (name, "run1", "aXb", "ab"):
        for split in BOTH:
            put(tmp_path / folder / f"{split}.jsonl", "{}")
    assert found(tmp_path / name) == {split: [f"{split}.jsonl"] for split in BOTH}
    assert found(tmp_path / name / "train.jsonl", ["train"], tmp_path) == {"train": [f"{name}/train.jsonl"]}
    pattern = found(f"{tmp_path}/{name}/*.jsonl", BOTH, tmp_path)
    assert pattern == {split: [f"{name}/{split}.jsonl"] for split in BOTH}
    assert is_local(str(tmp_path / name))


RIGHT = {
    "a subset beside it": (["train.jsonl", "train_10.jsonl", "validation.jsonl"], ["train.jsonl"]),
    "a numbered series from 0": (["train_1.csv", "train_0.csv", "validation.csv"], ["train_0.csv", "train_1.csv"]),
    "from 1, two digits": (
        ["validation.csv", *(f"train-{i}.csv" for i in range(1, 12))], [f"train-{i}.csv" for i in range(1, 12)],
    ),
    "a series that says how many": (
        ["train-00001-of-00002.jsonl", "train-00000-of-00002.jsonl", "validation-00000-of-00001.jsonl"],
        ["train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl"],
    ),
    "the hub's hashes": (
        ["train-00000-of-00001-a09b74b3ef9c3b56.parquet", "validation.parquet"],
        ["train-00000-of-00001-a09b74b3ef9c3b56.parquet"],
    ),
    "a folder a split": (
        ["train/0000.jsonl", "train/0001.jsonl", "validation/x.jsonl"], ["train/0000.jsonl", "train/0001.jsonl"],
    ),
    "in data": (["data/train.jsonl", "data/validation.jsonl", "README.md"], ["data/train.jsonl"]),
    "upper case": (["TRAIN.JSONL", "Validation.Jsonl"], ["TRAIN.JSONL"]),
    "packed": (["train.csv.gz", "validation.csv.bz2"], ["train.csv.gz"]),
    "dev": (["train.jsonl", "dev.jsonl"], ["train.jsonl"]),
    "other files": (["train.jsonl", "validation.jsonl", "notes.csv", "labels.json", ".train.csv"], ["train.jsonl"]),
    "parts of Spark": (
        ["train/part-00000-ab12-c000.csv", "train/part-00001-ab12-c000.csv", "train/_SUCCESS", "validation.csv"],
        ["train/part-00000-ab12-c000.csv", "train/part-00001-ab12-c000.csv"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", RIGHT)
def test_the_files_of_a_split(tmp_path: Path, case: str):
    names, train = RIGHT[case]
    for name in names:
        put(tmp_path / name, "{}")
    assert found(tmp_path)["train"] == train


WRONG = {
    "two subsets": (["train_10.jsonl", "train_500.jsonl", "validation.jsonl"], ["train_10.jsonl", "task.train_split"]),
    "a gap": (["train_0.jsonl", "train_1.jsonl", "train_3.jsonl", "validation.jsonl"], ["part 2 of the split 'train'"]),
    "a part is missing": (["train-00000-of-00002.csv", "validation.csv"], ["part 1 of 2 of the split 'train'"]),
    "two series": (
        ["train-00000-of-00001.csv", "train_0.csv", "train_1.csv", "validation.csv"], ["not parts of one series"],
    ),
    "two files": (["train.jsonl", "train.csv", "validation.jsonl"], ["train.csv", "which is the split 'train'?"]),
    "packed and unpacked": (["train.jsonl", "train.jsonl.gz", "validation.jsonl"], ["train.jsonl.gz"]),
    "a file and a folder": (["train.jsonl", "train/0.jsonl", "validation.jsonl"], ["which is the split 'train'?"]),
    "dev and val": (["train.jsonl", "dev.jsonl", "val.jsonl"], ["may both be the split 'validation'"]),
    "test is no validation": (["train.jsonl", "test.jsonl"], ["no split 'validation'", "known: test, train"]),
    "unlike files in a folder": (["train/all.jsonl", "train/small.jsonl", "validation.jsonl"], ["all.jsonl", "small"]),
    "two kinds": (["train.jsonl", "validation.csv"], ["files of different kinds (csv, json)"]),
    "an empty folder called so": (["train.jsonl/x.txt", "validation.jsonl"], ["train.jsonl: a folder"]),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_told_is_refused(tmp_path: Path, case: str):
    names, parts = WRONG[case]
    for name in names:
        put(tmp_path / name, "{}")
    with pytest.raises(DataError) as raised:
        find(str(tmp_path), BOTH, "train")
    assert all(part in str(raised.value) for part in parts) and "\n" not in str(raised.value), raised.value


def test_notes_say_what_was_not_read_and_what_was_taken_instead(tmp_path: Path):
    for name in ("train.jsonl", "train_10.jsonl", "dev.jsonl"):
        put(tmp_path / name, "{}")
    there = find(str(tmp_path), BOTH, "train")
    assert "train_10.jsonl beside it is not read" in there["train"].notes[0]
    assert there["validation"].notes == ("validation: taken from dev",)
    assert found(tmp_path, ["train_10"]) == {"train_10": ["train_10.jsonl"]}  # by its stem, exactly


def test_patterns_name_their_files(tmp_path: Path):
    for name in ("a/1.jsonl", "a/2.jsonl", "b/train.jsonl", "c/train.jsonl", "d/train_10.jsonl", "d/train_20.jsonl"):
        put(tmp_path / name, "{}")
    put(tmp_path / "d/.train_30.jsonl", "{}")
    assert found(f"{tmp_path}/a/*.jsonl", ["train"], tmp_path) == {"train": ["a/1.jsonl", "a/2.jsonl"]}
    assert found(f"{tmp_path}/[bc]/train.jsonl", ["train"], tmp_path) == {"train": ["b/train.jsonl", "c/train.jsonl"]}
    assert found(f"{tmp_path}/d/train_*", ["train"], tmp_path)["train"] == ["d/train_10.jsonl", "d/train_20.jsonl"]
    for index in range(3):
        put(tmp_path / f"e/train-{index}-of-3.jsonl", "{}")
    assert len(found(f"{tmp_path}/e/train-[01]*", ["train"], tmp_path)["train"]) == 2  # the third is there, not meant
    (tmp_path / "e/train-2-of-3.jsonl").unlink()
    with pytest.raises(DataError, match="part 2 of 3"):
        find(f"{tmp_path}/e/*", ["train"], "train")
    put(tmp_path / "d/train.jsonl", "{}")
    with pytest.raises(DataError, match="both fit the pattern"):
        find(f"{tmp_path}/d/train*", ["train"], "train")
    with pytest.raises(DataError, match="as a pattern fits no"):
        find(f"{tmp_path}/x*/train*", ["train"], "train")


def test_a_single_file_is_one_split(tmp_path: Path):
    put(tmp_path / "train.jsonl", "{}")
    put(tmp_path / "validation.jsonl", "{}")
    with pytest.raises(DataError, match=r"no split 'validation'.*would be all of its folder"):
        find(str(tmp_path / "train.jsonl"), BOTH, "train")
    with pytest.raises(DataError, match="no split 'train'"):
        find(str(tmp_path / "validation.jsonl"), BOTH, "train")
    assert found(tmp_path / "validation.jsonl", ["validation"], tmp_path) == {"validation": ["validation.jsonl"]}


def test_archives(tmp_path: Path):
    for name, members in {
        "flat": ["train.jsonl", "validation.jsonl"],
        "deep": ["d/train.jsonl", "d/validation.jsonl", "__MACOSX/d/._train.jsonl"],
    }.items():
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            for member in members:
                archive.writestr(member, "{}")
        assert list(found(tmp_path / f"{name}.zip")) == BOTH
    with zipfile.ZipFile(tmp_path / "one.zip", "w") as archive:
        archive.writestr("rows.jsonl", "{}")
    assert list(found(tmp_path / "one.zip", ["train"])) == ["train"]


@pytest.mark.parametrize(
    ("members", "right"),
    [
        ("README.md top/train.jsonl top/validation.jsonl", "top/train.jsonl top/validation.jsonl"),
        ("LICENSE a/README.txt a/b/train.csv a/b/dev.csv", "a/b/train.csv a/b/dev.csv"),
        ("x.pdf top/train/0.jsonl top/validation/0.jsonl", "top/train/0.jsonl top/validation/0.jsonl"),
        ("dataset_infos.json data/train.jsonl data/val.jsonl", "data/train.jsonl data/val.jsonl"),
        ("train/x.jsonl dev/x.jsonl README", "train/x.jsonl dev/x.jsonl"),
        ("more.zip", "holds an archive, more.zip"),
        ("README top/more.zip", "holds an archive, more.zip"),
        ("test.jsonl", "no split 'train'"),
        ("test/x.jsonl", "no split 'train'"),
        ("README", "holds no"),
    ],
)
def test_what_lies_around_in_archives(tmp_path: Path, members: str, right: str):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for member in members.split():
            archive.writestr(member, "{}")
    if "/" in right:
        assert found(tmp_path / "x.zip") == {s: [name] for s, name in zip(BOTH, right.split(), strict=True)}
    else:
        with pytest.raises(DataError, match=right) as raised:
            find(str(tmp_path / "x.zip"), ["train"], "train")
        assert "did you mean train" not in str(raised.value)


@pytest.mark.parametrize("name", ["nowhere", "nowhere.jsonl", "a/b/c", "", "x" * 5000, "~nobody/x"])
def test_what_does_not_exist(name: str):
    assert is_local(name) or name == "nowhere" or name == "x" * 5000
    with pytest.raises(DataError, match="does not exist"):
        find(name, ["train"], "train")


def test_what_is_no_file(tmp_path: Path):
    os.mkfifo(tmp_path / "train.jsonl")
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "gone")
    put(tmp_path / "a.txt", "x")
    with pytest.raises(DataError, match="is a link to nothing"):
        find(str(tmp_path / "link.jsonl"), ["train"], "train")
    with pytest.raises(DataError, match=r"no \.jsonl"):
        find(str(tmp_path / "a.txt"), ["train"], "train")
    reader, node = find(str(tmp_path / "train.jsonl"), ["train"], "train")["train"].files[0]
    with pytest.raises(DataError, match="no regular file"):
        reader(node, ["text"])
