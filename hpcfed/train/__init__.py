"""Rounds: round.py is one of them (start reading there), loop.py all of them.

start.py is the public way in (`hpcfed.train`, which is this package called), build.py makes a run of a recipe, run.py
says what a run is, resume.py and trail.py take it up again, log.py tells of it; replay.py and score.py are
`hpcfed.replay` and `hpcfed.evaluate`.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Room(ModuleType):
    """A package that can be called: hpcfed.train is both the folder of the rounds and what a user does."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        """As train.start.train."""
        from .start import train

        return train(*args, **options)


sys.modules[__name__].__class__ = _Room
