"""Training data of clients that have files of their own: each read by itself, as task.data would be.

Promise  what a client holds is a function of its file and the recipe, not of the clients that are read with it; so a
         row may read those it hosts and no others. No file is two clients', as far as the manifest and the files that
         a row reads tell
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from ..config.manifest import ITS_OWN
from ..errors import DataError
from .base import Example, Examples
from .files import literal
from .load import open_splits
from .patterns import is_pattern
from .rows import Reading, Split, joined
from .tokens import Lost

NOTHING = Reading((), 0)


class Source(Protocol):
    """where: how messages call the client.  data: absolute path or pattern.  named: real path -> whose data it is."""

    @property
    def where(self) -> str: ...

    @property
    def data(self) -> str: ...

    @property
    def named(self) -> Mapping[str, str]: ...


class Gathered(Examples):
    """The examples of several clients, one client after the other.  parts: of each.  owners: int64 [n], whose, from 0.

    They are not joined: small images of two clients may be kept in two sizes.
    reading: what was read of all of them.  notes: what the user should know of that.
    files: real path -> the client that it is of.
    """

    files: Mapping[str, str] = {}

    def __init__(self, parts: Sequence[Examples], reading: Reading = NOTHING, notes: Sequence[str] = ()) -> None:
        self.parts, sizes = list(parts), np.array([len(part) for part in parts], np.int64)
        self.reading, self.notes = reading, list(notes)
        labels = np.concatenate([np.zeros(0, np.int64), *(part.labels for part in parts)])
        lost = Lost.sum(part.lost for part in parts)
        super().__init__({}, labels, np.repeat(np.arange(len(parts)), sizes), lost)
        self._starts = np.cumsum(sizes) - sizes

    def largest(self, column: str) -> int:
        """The largest number in a column of any client; -1 if there is none."""
        return max((part.largest(column) for part in self.parts), default=-1)

    def digest(self) -> str:
        """128-bit hex digest of all clients' examples, in order."""
        return hashlib.blake2b("".join(part.digest() for part in self.parts).encode(), digest_size=16).hexdigest()

    def __getitem__(self, i: int) -> Example:
        assert self.owners is not None
        k = int(self.owners[i])
        return self.parts[k][i - int(self._starts[k])]


def read_sources(
    sources: Sequence[Source],
    train_split: str,
    wanted: Sequence[str],
    read: Callable[[Split], tuple[Examples, Reading]],
) -> Gathered:
    """What `read` makes of the training split of every source. DataError with the source's line."""
    parts, readings, notes = [], [], []
    files: dict[str, str] = {}
    for source in sources:
        if not is_pattern(source.data) and literal(source.data) is None:
            raise DataError(f"{source.where}: {source.data} does not exist; relative paths start at the manifest")
        try:
            split = open_splits(source.data, [train_split], train_split, wanted)[train_split]
            _keep_apart(source, split, files)
            examples, reading = read(split)
        except DataError as e:
            raise DataError(f"{source.where}: {e}") from None
        parts.append(examples)
        readings.append(reading)
        notes += [f"{source.where}: {note}" for note in split.notes]
    gathered = Gathered(parts, joined(readings), notes)
    gathered.files = {**(sources[0].named if sources else {}), **files}
    return gathered


def _keep_apart(source: Source, split: Split, files: dict[str, str]) -> None:
    """DataError if a file of a client is another's, too: of those read before, or by its name in the manifest."""
    for part in split.parts:
        on_disk, inside = real_path(part.where)
        for other in (files.setdefault(on_disk + inside, source.where), source.named.get(on_disk, source.where)):
            if other != source.where:
                raise DataError(f"{part.where} is the data of {other}, too; {ITS_OWN}")


def real_path(where: str) -> tuple[str, str]:
    """Of what messages call so: the file or folder on the disk, without links; and the place in it of an archive."""
    path = Path(where)
    while not os.path.lexists(path) and path != path.parent:
        path = path.parent
    return os.path.realpath(path), where[len(str(path)) :]
