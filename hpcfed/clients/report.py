"""How clients differ in what they hold: the line that a run prints, and what partition.json and the picture show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .partition import Indices, Parts

BLOCK = 1024  # clients whose shares of the classes are in memory at a time


@dataclass(frozen=True, eq=False)
class PartitionReport:
    """counts: int64 [clients, C], examples of each class with each client.  names: the C classes.

    skew: mean over clients of the total variation distance between the client's classes and everybody's, in [0, 1]:
    0 where all clients look alike.  classes: mean number of classes a client holds.
    """

    counts: Indices
    names: list[str]
    skew: float
    classes: float

    @property
    def sizes(self) -> Indices:
        """int64 [clients], examples a client."""
        return self.counts.sum(axis=1)

    def data(self, most: int = 50) -> dict[str, Any]:
        """What partition.json holds and `hpcfed plot` draws; small for any number of clients.

        counts: of the first `most` clients.  sizes: smallest, median and largest number of examples a client.
        """
        return {
            "clients": len(self.counts),
            "examples": int(self.counts.sum()),
            "sizes": np.quantile(self.sizes, [0, 0.5, 1]).tolist(),
            "skew": round(self.skew, 4),
            "classes": round(self.classes, 4),
            "names": self.names,
            "counts": self.counts[:most].tolist(),
        }

    def line(self) -> str:
        """The partition in one line: 10 clients hold 700 examples, ..."""
        smallest, median, largest = np.quantile(self.sizes, [0, 0.5, 1])
        classes = f"; {self.classes:.3g} of {len(self.names)} classes a client, skew {self.skew:.2f}"
        return (
            f"{len(self.counts):,} clients hold {self.counts.sum():,} examples, {smallest:g} to {largest:g} each "
            f"(median {median:g}){classes if len(self.names) > 1 else ''}"
        )


def partition_report(parts: Parts | Sequence[Indices], labels: Indices, names: Sequence[str]) -> PartitionReport:
    """How classes and sizes differ between clients: what the line and the picture show."""
    counts = np.empty((len(parts), len(names)), np.int64)
    for k, part in enumerate(parts):
        counts[k] = np.bincount(labels[part], minlength=len(names))
    everybody, away = counts.sum(axis=0) / counts.sum(), 0.0
    for low in range(0, len(parts), BLOCK):
        some = counts[low : low + BLOCK]
        away += float(np.abs(some / some.sum(axis=1, keepdims=True) - everybody).sum())
    return PartitionReport(counts, list(names), away / len(parts) / 2, float((counts > 0).sum(axis=1).mean()))
