"""The shard axis: what the ranks of one row, which hold one copy of the model together, tell each other.

    rank = row * shards + shard          mesh.py

A row of one rank is a `Row`: nobody to talk to. shards.py has the one of several.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np

from ..errors import ConfigError, HpcfedError

T = TypeVar("T")


class Row:
    """A row, and this rank's place in it.  index: of the row on the client axis.

    shard: 0 to shards - 1; shard 0 speaks for the row on the client axis.
    device: "cpu" or "cuda", where the model is and the ranks' tensors meet.
    beside: rows whose shard 0 is on this row's hosts.
    All methods are collective over the row: every shard calls them, in the same order.
    """

    shard = 0
    shards = 1
    beside = 1

    def __init__(self, index: int = 0, device: str = "cpu") -> None:
        self.index, self.device = index, device

    def gather(self, data: bytes) -> list[bytes]:
        """The bytes of every shard, in order; sizes may differ."""
        return [data]

    def share(self, vector: np.ndarray) -> None:
        """Overwrite a contiguous vector by that of shard 0; any dtype, the same size on every shard."""

    def any(self, flag: bool) -> bool:
        """Whether any shard says so."""
        return flag

    def together(self, work: Callable[[], T]) -> T:
        """work() on every shard; if it fails on one, every shard raises, and nobody waits for a shard that gave up."""
        done, problem = None, None
        try:
            done = work()
        except HpcfedError as e:
            problem = e
        said = [text.decode() for text in self.gather(str(problem or "").encode())]
        if problem:
            raise problem
        if any(said):
            raise ConfigError(next(text for text in said if text))
        return done  # type: ignore[return-value]

    @contextmanager
    def peers(self) -> Iterator[None]:
        """Inside, others may talk on the row's channel: a shard that is gone raises PeerLostError, as it does here."""
        yield

    def close(self) -> None:
        """Let go of the channel."""
