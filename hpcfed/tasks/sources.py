"""Training data of clients that have files of their own: each read by itself, as task.data would be.

Promise  what a client holds is a function of its file and the recipe, not of the clients that are read with it; so a
         row may read those it hosts and no others
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from ..errors import DataError
from .base import Example, Examples
from .load import Split, is_pattern, open_splits


class Source(Protocol):
    """where: how messages call the client.  data: absolute path or pattern."""

    @property
    def where(self) -> str: ...

    @property
    def data(self) -> str: ...


class Gathered(Examples):
    """The examples of several clients, one client after the other.  parts: of each.  owners: int64 [n], whose, from 0.

    They are not joined: small images of two clients may be kept in two sizes.
    """

    def __init__(self, parts: Sequence[Examples]) -> None:
        self.parts, sizes = list(parts), np.array([len(part) for part in parts], np.int64)
        labels = np.concatenate([np.zeros(0, np.int64), *(part.labels for part in parts)])
        super().__init__({}, labels, np.repeat(np.arange(len(parts)), sizes))
        self._starts = np.cumsum(sizes) - sizes

    def digest(self) -> str:
        """128-bit hex digest of all clients' examples, in order."""
        return hashlib.blake2b("".join(part.digest() for part in self.parts).encode(), digest_size=16).hexdigest()

    def __getitem__(self, i: int) -> Example:
        assert self.owners is not None
        k = int(self.owners[i])
        return self.parts[k][i - int(self._starts[k])]


def read_sources(sources: Sequence[Source], train_split: str, read: Callable[[Split], Examples]) -> Gathered:
    """What `read` makes of the training split of every source. DataError with the source's line."""
    parts = []
    for source in sources:
        if not is_pattern(source.data) and not Path(source.data).exists():
            raise DataError(f"{source.where}: {source.data} does not exist; relative paths start at the manifest")
        try:
            with open_splits(source.data, [train_split], train_split) as splits:
                parts.append(read(splits[train_split]))
        except DataError as e:
            raise DataError(f"{source.where}: {e}") from None
    return Gathered(parts)
