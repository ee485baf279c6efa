"""The client axis of one row: nobody to talk to, nothing is sent."""

from __future__ import annotations

from typing import NoReturn

import numpy as np

from .base import Transport
from .row import Row


class SoloTransport(Transport):
    """One row. Collectives hand back what they were given; abort is an ordinary exit."""

    name = "alone"

    def __init__(self) -> None:
        self.rank, self.row, self.rows = 0, Row(), 1

    def _sum(self, vector: np.ndarray) -> None:
        pass

    def _gather(self, vector: np.ndarray) -> np.ndarray:
        return vector[None].copy()

    def _to_root(self, vector: np.ndarray) -> np.ndarray:
        return vector[None].copy()

    def _broadcast(self, vector: np.ndarray, root: int) -> None:
        assert root == 0

    def barrier(self) -> None:
        pass

    def abort(self, code: int) -> NoReturn:
        raise SystemExit(code)

    def close(self) -> None:
        pass
