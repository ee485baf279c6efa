"""The errors a user can meet. Every message names the setting or file, what was wrong and what would be right.

A user's fault raises one of these and reaches the terminal as one sentence, without a traceback.
Our own fault is an `assert`; a rank's fault stops all ranks (see transport/guard.py).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HpcfedError(Exception):
    """Anything hpcfed can explain to its user."""


class ConfigError(HpcfedError):
    """A setting, a command line or a combination of them is wrong."""


class DataError(HpcfedError):
    """A data set, a file of it or a row of it is wrong."""


class OrbitError(HpcfedError):
    """A journal, an orbit or a weights file is damaged, truncated, or belongs to another model."""


class RunFolderError(HpcfedError):
    """A run folder is finished, in use, or not writable."""


class TransportError(HpcfedError):
    """The ranks cannot talk, or what came over the wire is impossible."""


class DivergedError(HpcfedError):
    """No client's loss is finite any more, or rows no longer hold the same weights."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, at most 300 characters of it; its type if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The tail of a message about an unknown `name`: the nearest known one, then all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    return (f"; did you mean {near[0]}?" if near else "") + f" (known: {', '.join(known)})"
