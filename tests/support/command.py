"""The hpcfed command inside the test's own process: what it prints and its exit status, as a user meets them."""

from __future__ import annotations

import contextlib
import io
import sys
from dataclasses import dataclass
from typing import Any
from unittest import mock

from hpcfed.cli.main import main


@dataclass(frozen=True)
class Said:
    """code: exit status.  out, err: what was written to stdout and stderr."""

    code: int
    out: str
    err: str


def hpcfed(*argv: Any) -> Said:
    """`hpcfed *argv`."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with mock.patch.object(sys, "argv", ["hpcfed", *map(str, argv)]):
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main()
            except SystemExit as e:
                code = e.code if isinstance(e.code, int) else 0 if e.code is None else 1
    return Said(code, out.getvalue(), err.getvalue())


def ok(*argv: Any) -> Said:
    """`hpcfed *argv`, which must succeed."""
    said = hpcfed(*argv)
    assert said.code == 0, said
    return said


def refused(*argv: Any) -> str:
    """`hpcfed *argv`, which must end with one sentence to the user; returns it."""
    said = hpcfed(*argv)
    assert said.code == 1 and "Traceback" not in said.out + said.err, said
    lines = [line for line in said.err.splitlines() if line.startswith("hpcfed: ")]
    assert len(lines) == 1, said
    return said.err[said.err.index("hpcfed: ") :].strip()


def settings(**values: Any) -> list[str]:
    """--set options; a double underscore stands for the dot: settings(algorithm__lr=1)."""
    return [part for key, value in values.items() for part in ("--set", f"{key.replace('__', '.')}={value}")]
