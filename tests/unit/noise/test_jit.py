"""Kernels compile and compute whatever becomes of the folder that keeps them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hpcfed.noise import jit
from hpcfed.noise.jit import I64, _Folders, kernel
from tests.support.folders import file_size


def twice() -> int:
    """A kernel as the package's own ones are made, asked for 2 x 21."""

    def double(x):
        return 2 * x

    return int(kernel(I64, returns=I64)(double)(21))


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def damage(how: bytes) -> Callable[[Path], None]:
    def work(folder: Path) -> None:
        for path in files(folder):
            path.write_bytes(how)

    return work


def folders_for_files(folder: Path) -> None:
    for path in files(folder):
        path.unlink()
        path.mkdir()


@pytest.mark.parametrize(
    "harm", [damage(b""), damage(b"no pickle"), damage(b"\x80\x05."), damage(b"\x80\x04]\x94."), folders_for_files]
)
def test_damaged_files_are_left_and_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: Callable[[Path], None]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    monkeypatch.setattr(jit, "_folders", _Folders(iter([(first, "")])))
    assert twice() == 42 and files(first)
    harm(first)
    monkeypatch.setattr(jit, "_folders", _Folders(iter([(first, ""), (second, "")])))
    assert twice() == 42 and (files(first) or files(second))  # an old version's are written over


def test_a_folder_that_fills_up_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit, "_folders", _Folders(iter([(tmp_path, "")])))
    with file_size(1000):
        assert twice() == 42
    assert jit._folders.current is None


@pytest.mark.parametrize("candidates", [[], [(Path("/dev/null/x"), "Not a directory")], [(Path("/dev/null/x"), "")]])
def test_without_a_folder_nothing_is_kept(monkeypatch: pytest.MonkeyPatch, candidates: list[tuple[Path, str]]) -> None:
    monkeypatch.setattr(jit, "_folders", _Folders(iter(candidates)))
    assert twice() == 42
