"""Rows of a data set: a hub name, a local folder, a file, or a pattern of files.

    stanfordnlp/sst2, nyu-mll/glue:rte   the hub (hub.py); what follows the colon is the configuration
    FOLDER, FILE, "PATTERN*"             files of this machine: files.py says which are meant, formats.py how they are
                                         read

Promise  what is named by a path is read from there and from nowhere else, by readers that guess no types; no file is
         written, and nothing stale is ever reused
"""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import DataError
from .files import find, is_local
from .hub import read_hub
from .paths import roots
from .rows import Split


def open_splits(
    data: str, splits: Sequence[str], train_split: str, wanted: Sequence[str], revision: str | None = None
) -> dict[str, Split]:
    """The rows of `splits` of `data`.  wanted: the columns that will be asked for (images are always there), or paths.

    Raises DataError for whatever is missing, empty or malformed, with file and line where there are any.
    """
    splits, wanted = list(dict.fromkeys(splits)), roots(wanted)
    if not is_local(data):
        return {split: Split([rows]) for split, rows in read_hub(data, splits, revision).items()}
    opened = {}
    for split, found in find(data, splits, train_split).items():
        parts = [read(node, wanted) for read, node in found.files]
        opened[split] = Split(parts, found.notes)
        if not len(opened[split]):
            raise DataError(f"{opened[split].where}: holds no rows")
    return opened
