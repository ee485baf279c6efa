"""Run folders as runs leave them: one that was interrupted, one that has finished, what lies in them; a full disk."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hpcfed.runs.folder import RunFolder
from tests.support.runs import made_up_summary

RECIPE = 'rounds = 10\neval_every = 5\n[model]\nname = "opt"\n[algorithm]\nlr = 1e-3\n'
ENV = {"python": "3.11"}


def interrupted(path: Path) -> None:
    with RunFolder.create(path, RECIPE, ENV) as folder:
        folder.journal.write_bytes(b"three rounds")
        for t in (0, 1, 2, 3, 4):
            folder.log({"t": t, "loss": 0.5})


def finished(path: Path, **changes: object) -> None:
    with RunFolder.create(path, RECIPE, ENV) as folder:
        folder.journal.write_bytes(b"all rounds")
        folder.log({"t": 100, "loss": 0.5})
        folder.write_summary(made_up_summary(**changes))


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()}


@contextmanager
def file_size(most: int) -> Iterator[None]:
    """Inside, no file of this process grows beyond `most` bytes: what a full disk or a quota does, also to root."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
