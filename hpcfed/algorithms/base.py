"""What every algorithm is: a record of functions. One paper, one file, one line in ALGORITHMS.

An algorithm is built from an orbit's header alone, so training and replay run the same `decode`. It has no state of its
own: what a later round must know of the earlier ones is in the last payload.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..errors import DivergedError
from ..messages import Reports, Slopes, Tally, Update
from ..orbit import Header
from ..seeds import derive

Last = bytes | None  # the payload of the round before; None in round 0


@dataclass(frozen=True, eq=False)
class Plan:
    """What the clients of a round do.

    seeds: uint64 [1, s], the same s directions for all, or [K, s], row k for the k-th client of the cohort.
    walk: float64 [s], step size of each local step, taken before the next slope is found; None: all slopes at the
    round's weights.  batches: all slopes on the round's one batch, a new batch a step, or one pass over the data.
    """

    seeds: np.ndarray
    walk: np.ndarray | None = None
    batches: Literal["round", "step", "epoch"] = "round"


@dataclass(frozen=True)
class Algorithm:
    """plan: (round t, last payload) -> what the clients do; the same on every rank, nothing is sent.

    ballots: (slopes, t) -> votes int8 [m, q]; None for methods that send their slopes as float32.
    decide: (what all clients sent, t, last payload) -> what goes into the orbit for round t, header.round_bytes bytes.
    decode: (payload, t) -> the update it stands for.
    cumulative: the last payload alone makes the model.
    uplink_bits, downlink_bits: what the method itself needs a client and round (not what a collective carries).
    """

    plan: Callable[[int, Last], Plan]
    decide: Callable[[Tally | Reports, int, Last], bytes]
    decode: Callable[[bytes, int], Update]
    uplink_bits: int
    downlink_bits: int
    ballots: Callable[[Slopes, int], np.ndarray] | None = None
    cumulative: bool = False


def directions(run_seed: int, t: int, count: int, slots: Sequence[int] | None = None) -> np.ndarray:
    """Seeds of round t: uint64 [1, count] for all, or [len(slots), count], own ones for the k-th of a cohort."""
    if slots is None:
        return np.array([[derive(run_seed, "direction", t, i) for i in range(count)]], np.uint64)
    return np.array([[derive(run_seed, "direction", t, i, k) for i in range(count)] for k in slots], np.uint64)


def expect_width(header: Header, *shape: int) -> None:
    """Raise ValueError unless a payload holds as many floats; a stranger's settings must not make us draw a billion."""
    counts = all(type(n) is int and n > 0 for n in shape)
    if header.payload != "floats" or not counts or math.prod(shape) != header.width:
        raise ValueError(f"{header.width} {header.payload} a round where {shape} floats belong")


def expect_counts(*counts: object) -> None:
    """Raise ValueError unless all are whole numbers that a recipe may hold and that together can be walked."""
    right = all(type(n) is int and 1 <= n <= 2**18 for n in counts)
    if not right:
        raise ValueError(f"{counts} are no counts between 1 and {2**18}")


def expect_choice(name: str, value: object, *known: str) -> None:
    """Raise ValueError unless a setting is one of these words."""
    if value not in known:
        raise ValueError(f"{name} is none of {', '.join(known)}")


def diverged(header: Header, t: int, clients: int) -> DivergedError:
    """The error of a round in which no client could find a slope."""
    why = f"no longer finite; a smaller algorithm.lr (now {header.lr:g}) or model.dtype=float32 may cure it"
    if t == 0:
        why = "not finite from the start: the base model is damaged, or overflows unless model.dtype=float32"
    return DivergedError(f"round {t}: all {clients} clients abstained, since their loss is {why}")


def pack_floats(values: np.ndarray) -> bytes:
    """Payload of one round: little-endian float32, one bit pattern for all that is not finite."""
    values = np.asarray(values, "<f4")
    return np.where(np.isfinite(values), values, np.float32(np.nan)).astype("<f4").tobytes()


def unpack_floats(payload: bytes, *shape: int) -> np.ndarray:
    """float32 of `shape` from a payload, NaN where a client abstained."""
    values = np.frombuffer(payload, "<f4").astype(np.float32).reshape(shape)
    return np.where(np.isfinite(values), values, np.float32(np.nan))  # an orbit of a stranger may hold infinities
