"""One paper a file; ALGORITHMS is the table of them, by recipe name."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import ConfigError, did_you_mean
from ..orbit import Header
from .base import Algorithm
from .feedsign import feedsign

ALGORITHMS: dict[str, Callable[[Header], Algorithm]] = {"feedsign": feedsign}


def make_algorithm(header: Header) -> Algorithm:
    """The algorithm that the header names."""
    if header.algorithm not in ALGORITHMS:
        raise ConfigError(f"algorithm.name={header.algorithm!r} is unknown{did_you_mean(header.algorithm, ALGORITHMS)}")
    return ALGORITHMS[header.algorithm](header)


__all__ = ["ALGORITHMS", "Algorithm", "make_algorithm"]
