"""Folders of images: classes are folders, in the order of paths; what is no picture is none."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from PIL import Image

from hpcfed.errors import DataError
from hpcfed.tasks.load import open_splits
from hpcfed.tasks.rows import Split
from tests.support.data import put


def picture(file: Path, grey: int = 0) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 4), grey).save(file)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i, name in enumerate(["cat-big/1.png", "cat/1.png", "cat/2.PNG", "dog/1.jpg"]):
        picture(tmp_path / "images" / "train" / name, 10 * i)
    return tmp_path / "images"


def opened(data: Path) -> Split:
    return open_splits(str(data), ["train"], "train", ["label"])["train"]


def greys(split: Split) -> list[int]:
    pictures = split.pictures(range(len(split)))
    assert pictures is not None
    return [image.getpixel((0, 0)) for image in pictures]


def test_the_order_is_that_of_the_paths(folder: Path):
    split = opened(folder)
    assert split.folders == ["cat-big", "cat", "cat", "dog"] and greys(split) == [0, 10, 20, 30]


@pytest.mark.parametrize("around", ["", "train/", "top/train/"])
def test_archives(folder: Path, tmp_path: Path, around: str):
    with zipfile.ZipFile(tmp_path / "train.zip", "w") as archive:
        for file in sorted((folder / "train").rglob("*.*")):
            archive.write(file, around + str(file.relative_to(folder / "train")))
        archive.writestr(f"__MACOSX/{around}cat/._1.png", b"x")
    split = opened(tmp_path / "train.zip")
    assert split.folders == ["cat-big", "cat", "cat", "dog"] and greys(split) == [0, 10, 20, 30]


@pytest.mark.parametrize(
    ("name", "content", "left_out"),
    [
        ("cat/Thumbs.db", b"x", {}),
        ("cat/.DS_Store", b"x", {}),
        ("metadata.csv", b"file_name,width\ncat/1.png,4\n", {}),
        ("metadata.jsonl", b'{"file_name": "cat/1.png"}\n', {}),
        ("README.md", b"x", {}),
        ("cat/3.heic", b"x", {"no picture: .heic": 1}),
        ("cat/notes", b"x", {"no picture: without an ending": 1}),
    ],
)
def test_files_that_are_no_pictures(folder: Path, name: str, content: bytes, left_out: dict[str, int]):
    put(folder / "train" / name, content)
    split = opened(folder)
    assert len(split) == 4 and split.left_out() == left_out


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("metadata.csv", b"file_name,label\ncat/1.png,dog\n", "metadata.csv: has labels of its own"),
        ("metadata.jsonl", b'{"file_name": "cat/1.png", "label": 1}\n', "has labels of its own"),
        ("dog/metadata.csv", b"file_name,label\n1.jpg,dog\n", "has labels of its own"),
        ("5.png", b"x", "lies in no class folder"),
        ("dog/more/5.png", b"x", "deeper than in a class folder"),
        ("dog/more/6.jpg", b"x", "images must be at"),
    ],
)
def test_what_would_be_another_class_is_refused(folder: Path, name: str, content: bytes, says: str):
    put(folder / "train" / name, content)
    with pytest.raises(DataError, match=says):
        opened(folder)


@pytest.mark.parametrize("content", [b"", b"x", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0"])
def test_a_picture_that_is_none_is_named(folder: Path, content: bytes):
    put(folder / "train" / "cat/1.png", content)
    with pytest.raises(OSError, match=r"cat/1\.png: no image that Pillow can read"):
        greys(opened(folder))


@pytest.mark.parametrize("name", ["__background__", "_background_noise_", "__none__"])
def test_classes_with_odd_names(folder: Path, name: str):
    picture(folder / "train" / name / "1.png", 50)
    split = opened(folder)
    assert sorted(split.folders or []) == sorted(["cat-big", "cat", "cat", "dog", name]) and 50 in greys(split)


def test_rows_beside_a_folder_of_pictures_are_not_lost(tmp_path: Path):
    picture(tmp_path / "train/pictures/cat/1.png")
    put(tmp_path / "train/rows.jsonl", '{"label": 1}')
    split = opened(tmp_path)
    assert split.folders is None and len(split) == 1 and "train/pictures beside them is not" in split.notes[0]
