"""What every algorithm is: a record of functions. One paper, one file, one line in ALGORITHMS.

An algorithm is built from an orbit's header alone, so training and replay run the same `decode`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..messages import Tally, Update


@dataclass(frozen=True)
class Algorithm:
    """directions: round -> q seeds, the same on every rank.

    ballots: (slopes float64 [m, q], ids of the m clients, t) -> votes int8 [m, q].
    decide: (tally, t) -> what goes into the orbit for round t, a payload of header.round_bytes bytes.
    decode: (payload, t) -> the update it stands for.
    uplink_bits, downlink_bits: what the method itself needs a client and round (not what a collective carries).
    """

    directions: Callable[[int], Sequence[int]]
    ballots: Callable[[np.ndarray, Sequence[int], int], np.ndarray]
    decide: Callable[[Tally, int], bytes]
    decode: Callable[[bytes, int], Update]
    uplink_bits: int
    downlink_bits: int
