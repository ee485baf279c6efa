"""Files that are whole or not there: what is left when a writer is killed, fails, or has no room."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from hpcfed.atomic import sync_folder, write_all, write_atomic
from tests.support.folders import contents, file_size
from tests.support.harness import ROOT


def test_write_atomic_leaves_the_old_file(tmp_path):
    file = tmp_path / "f"
    write_atomic(file, "old")
    with file_size(10), pytest.raises(OSError, match="too large"):
        write_atomic(file, "n" * 100)
    assert contents(tmp_path) == {"f": b"old"}


def test_text_bytes_and_parts_are_written_alike(tmp_path: Path):
    def parts() -> Iterator[bytes | memoryview]:
        yield b"na"
        yield memoryview("ïve\n".encode())

    for content in ("naïve\n", "naïve\n".encode(), parts()):
        assert write_atomic(tmp_path / "f", content) == 7
        assert contents(tmp_path) == {"f": b"na\xc3\xafve\n"}
    assert write_atomic(tmp_path / "f", "") == 0 and contents(tmp_path) == {"f": b""}


def test_the_file_is_checked_before_it_has_its_name(tmp_path: Path):
    file, seen = tmp_path / "f", []

    def check(fresh: Path) -> None:
        seen.append((fresh.parent, fresh.read_bytes(), file.read_bytes()))

    write_atomic(file, "old")
    write_atomic(file, "new", check)
    assert seen == [(tmp_path, b"new", b"old")] and contents(tmp_path) == {"f": b"new"}


def test_it_is_on_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen, fsync, replace = list[str](), os.fsync, Path.replace

    def noted_fsync(fd: int) -> None:
        seen.append("folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")
        fsync(fd)

    def noted_replace(path: Path, target: Path) -> Path:
        seen.append("name")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    write_atomic(tmp_path / "f", "new", lambda _: seen.append("check"))
    assert seen == ["file", "check", "name", "folder"]


def test_what_fails_leaves_the_old_file_and_no_other(tmp_path: Path):
    file = tmp_path / "f"

    def refuse(_: Path) -> None:
        raise ZeroDivisionError

    def broken() -> Iterator[bytes]:
        yield b"half of it"
        raise ZeroDivisionError

    for before in ({}, {"f": b"old"}):
        for content, check in (("new", refuse), (broken(), None)):
            with pytest.raises(ZeroDivisionError):
                write_atomic(file, content, check)
            assert contents(tmp_path) == before
        write_atomic(file, "old")
    with pytest.raises(FileNotFoundError):
        write_atomic(tmp_path / "nowhere" / "f", "new")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        write_atomic(tmp_path / "folder", "new")
    assert contents(tmp_path) == {"f": b"old"}


WRITER = """
import os, signal, sys
from pathlib import Path
from hpcfed.atomic import write_atomic

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def parts():
    yield b"half"
    die()

file, when = Path(sys.argv[1]), sys.argv[2]
write_atomic(file, "old")
write_atomic(file, parts() if when == "while it writes" else "new", die)
"""


@pytest.mark.parametrize("when", ["while it writes", "before it has its name"])
def test_a_killed_writer_leaves_the_old_file_whole(tmp_path: Path, when: str):
    file = tmp_path / "f"
    killed = subprocess.run([sys.executable, "-c", WRITER, str(file), when], cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL and file.read_text() == "old"
    assert set(contents(tmp_path)) == {"f", "f.new"}  # nobody was left to remove it ...
    write_atomic(file, "new")
    assert contents(tmp_path) == {"f": b"new"}  # ... but the next writer


def test_a_disk_that_is_nearly_full_takes_a_part_and_then_says_so(tmp_path: Path):
    fd = os.open(tmp_path / "f", os.O_WRONLY | os.O_CREAT)
    try:
        assert write_all(fd, b"") == 0 and write_all(fd, memoryview(b"abc")) == 3
        with file_size(10), pytest.raises(OSError, match="too large"):
            write_all(fd, b"0123456789")
    finally:
        os.close(fd)
    assert (tmp_path / "f").read_bytes() == b"abc0123456"  # the write that took only seven bytes was gone on with


@pytest.mark.parametrize(("number", "passed_over"), [(errno.EINVAL, True), (errno.ENOTSUP, True), (errno.EIO, False)])
def test_a_file_system_that_cannot_sync_folders_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, passed_over: bool
):
    def refuse(fd: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with nullcontext() if passed_over else pytest.raises(OSError, match=os.strerror(number)):
        sync_folder(tmp_path)


def test_a_folder_is_synced_and_what_is_none_is_an_error(tmp_path: Path):
    sync_folder(tmp_path)
    (tmp_path / "f").write_text("")
    for nothing in (tmp_path / "f", tmp_path / "nowhere"):
        with pytest.raises(OSError):
            sync_folder(nothing)
