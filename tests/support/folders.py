"""Run folders as runs leave them: one that was interrupted, one that has finished, and what lies in them."""

from __future__ import annotations

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
