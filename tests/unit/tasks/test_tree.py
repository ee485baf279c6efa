"""Files on a disk and in archives, by their names."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from hpcfed.errors import DataError
from hpcfed.tasks.tree import OnDisk, unzipped, walk
from tests.support.data import put

NAMES = ["a.txt", "b/[1].txt", "b/c/d e.txt"]


def test_a_folder_and_an_archive_of_it_are_alike(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name in [*NAMES, ".hidden", "b/Thumbs.db"]:
            put(tmp_path / "x" / name, name)
            archive.writestr(name, name)
    for root in (OnDisk(tmp_path / "x"), unzipped(OnDisk(tmp_path / "x.zip"))):
        assert {path: node.open().read().decode() for path, node in walk(root)} == {name: name for name in NAMES}
        assert all(node.where.endswith(path) for path, node in walk(root))


@pytest.mark.parametrize("content", [b"", b"x", b"PK\x03\x04", b"PK no archive"])
def test_what_is_no_archive(tmp_path: Path, content: bytes):
    with pytest.raises(DataError, match=r"x\.zip: cannot be unpacked"):
        unzipped(OnDisk(put(tmp_path / "x.zip", content)))


def test_what_is_no_file(tmp_path: Path):
    with pytest.raises(DataError, match="is a folder, not a file"):
        OnDisk(tmp_path).open()
    with pytest.raises(DataError, match="no regular file"):
        OnDisk(Path("/dev/null")).open()
    with pytest.raises(DataError, match="cannot be read: No such file"):
        OnDisk(tmp_path / "gone").open()
    with pytest.raises(DataError, match="cannot be listed"):
        OnDisk(tmp_path / "gone").children()


@pytest.mark.parametrize(
    ("name", "listed"),
    [
        ("__background__", True),
        ("__init__", True),
        ("_unknown_", True),
        ("__", True),
        ("__MACOSX__", True),
        ("__MACOSX", False),
        ("__pycache__", False),
        (".git", False),
        ("Thumbs.db", False),
    ],
)
def test_names_that_systems_leave_behind(tmp_path: Path, name: str, listed: bool):
    put(tmp_path / "x" / name / "1.png", "")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(f"{name}/1.png", "")
    for root in (OnDisk(tmp_path / "x"), unzipped(OnDisk(tmp_path / "x.zip"))):
        assert [node.name for node in root.children()] == ([name] if listed else [])
