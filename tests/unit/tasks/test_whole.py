"""A folder that is one split: all of what lies in it, or an error, or a note."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcfed.errors import DataError
from hpcfed.tasks.tree import OnDisk
from hpcfed.tasks.whole import whole
from tests.support.data import put


@pytest.mark.parametrize(
    "stems",
    ["data data_1", "data data_0", "data data-1-of-1", "rows rows1", "part part-0", "x.1 x", "a_1 a-2", "a1 a_2"],
)
def test_a_file_and_a_part_of_it_are_not_one_series(tmp_path: Path, stems: str):
    files = [put(tmp_path / "train" / f"{stem}.jsonl", "{}") for stem in stems.split()]
    with pytest.raises(DataError, match="are not parts of one series") as raised:
        whole(OnDisk(tmp_path / "train"))
    assert all(str(file) in str(raised.value) for file in files)


@pytest.mark.parametrize(
    "stems", ["data_0 data_1", "0 1 2", "a1 a2", "part-1 part-2", "part-00000-ab-c000 part-00001-ab-c000", "only"]
)
def test_series(tmp_path: Path, stems: str):
    for stem in stems.split():
        put(tmp_path / "train" / f"{stem}.jsonl", "{}")
    there = whole(OnDisk(tmp_path / "train"))
    assert there is not None and [node.name for _, node in there.files] == [f"{stem}.jsonl" for stem in stems.split()]
    assert not there.notes


def test_a_part_that_says_of_how_many(tmp_path: Path):
    put(tmp_path / "train/part-00000-of-00002.jsonl", "{}")
    put(tmp_path / "train/part-00001-of-00003.jsonl", "{}")
    with pytest.raises(DataError, match="are not parts of one series"):
        whole(OnDisk(tmp_path / "train"))
    (tmp_path / "train/part-00001-of-00003.jsonl").unlink()
    put(tmp_path / "train/more.txt", "")
    put(tmp_path / "train/part-00002-of-00002.jsonl", "{}")
    with pytest.raises(DataError, match="part 1 of 2"):
        whole(OnDisk(tmp_path / "train"))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("more/part-1.jsonl", "more"),
        ("more/deep/x.csv.gz", "more"),
        ("part-1.zip", "part-1.zip"),
        ("pictures/cat/1.png", "pictures"),
        ("1/part-1.parquet", "1"),
        ("README.md", None),
        ("logs/out.txt", None),
        ("empty/.hidden.jsonl", None),
    ],
)
def test_data_below_are_told(tmp_path: Path, name: str, told: str | None):
    file = put(tmp_path / "train/part-0.jsonl", "{}")
    put(tmp_path / "train" / name, "{}")
    there = whole(OnDisk(tmp_path / "train"))
    assert there is not None and [node.where for _, node in there.files] == [str(file)]
    beside = f"{tmp_path / 'train'}: its files are read, {tmp_path / 'train' / str(told)} beside them is not"
    assert there.notes == ((beside,) if told else ())
