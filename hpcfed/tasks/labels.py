"""Labels: what a column of anything says about classes 0 .. C-1, and which examples a run uses.

Promise  which examples are drawn depends on the seed and the data alone (seeds.py), never on the rank or the run
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, did_you_mean
from ..seeds import derive, sample

Indices = NDArray[np.int64]


def class_names(values: Sequence[Any], names: Sequence[str] | None) -> list[str]:
    """The classes of a data set without a name of its own: the column's class names, or its sorted values."""
    if names is not None:
        return list(names)
    present = [v for v in values if not _missing(v)]
    numbers = [_integer(v) for v in present]
    if present and all(n is not None for n in numbers):
        return [str(n) for n in range(max(n for n in numbers if n is not None) + 1)]
    return sorted({str(v) for v in present})


def class_indices(
    values: Sequence[Any], labels: Sequence[str], names: Sequence[str] | None, where: str, unlabelled: int | None
) -> Indices:
    """int64 [n] class of each row, -1 for those that say `unlabelled`.

    values: class numbers, class names, truth values, or numbers into `names` (what the data set calls its classes).
    Raises DataError with the row (counted from 1) for anything that is none of the classes.
    """
    if names is not None and set(names) == set(labels):  # the data set may number its classes in another order
        order = {i: labels.index(name) for i, name in enumerate(names)}
    else:
        order = {i: i for i in range(len(labels))}
    index = {name: i for i, name in enumerate(labels)}
    out = np.empty(len(values), np.int64)
    for row, value in enumerate(values):
        number = _integer(value)
        if isinstance(value, str) and value in index:
            out[row] = index[value]
        elif number is not None and number in order:
            out[row] = order[number]
        elif number is not None and number == unlabelled:
            out[row] = -1
        else:
            raise DataError(f"{where}, row {row + 1}: {_complaint(value, number, labels)}")
    return out


def _missing(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _integer(value: Any) -> int | None:
    if isinstance(value, str):
        return int(value) if value.strip().lstrip("-").isdecimal() else None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return int(value) if isinstance(value, int | np.integer | np.bool_) else None


def _complaint(value: Any, number: int | None, labels: Sequence[str]) -> str:
    if _missing(value):
        return "the label is missing"
    allowed = f"must be 0 to {len(labels) - 1}"
    if number is not None:
        return f"label {number} is out of range; {allowed}"
    return f"label {value!r} " + (f"is no class{did_you_mean(value, labels)}" if isinstance(value, str) else allowed)


def few_shot(labels: Indices, classes: Sequence[str], k: int, seed: int, where: str) -> Indices:
    """Rows of `k` examples of every class, in the data set's order."""
    rows: list[int] = []
    for c, name in enumerate(classes):
        of_class = np.flatnonzero(labels == c)
        if len(of_class) < k:
            raise DataError(f"task.few_shot={k}: {where} has only {len(of_class)} examples of class {name!r}")
        rows += of_class[sample(derive(seed, "few_shot", c), len(of_class), k)].tolist()
    return np.array(sorted(rows), np.int64)


def limited(rows: Indices, limit: int | None, seed: int, purpose: str) -> Indices:
    """At most `limit` of `rows`, drawn at random, in the data set's order."""
    if limit is None or limit >= len(rows):
        return rows
    return rows[sorted(sample(derive(seed, purpose), len(rows), limit))]
