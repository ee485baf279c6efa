"""What a method with an orbit is: a record of functions. One paper, one file, one line in config/methods.py.

A Method is what a recipe names. Of an orbit's header alone it makes an Algorithm, whose functions are the steps of a
round (train/round.py), so training and replay run the same `decode`. Neither has a state: what a later round must know
of the earlier ones is in the last decision.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..clients import Pool
from ..config import Traits
from ..errors import DivergedError
from ..messages import Reports, Slopes, Steps, Tally, Update
from ..orbit import Header
from ..seeds import derive

Last = bytes | None  # the decision of the round before; None in round 0


def reports(slopes: Slopes, t: int) -> np.ndarray:
    """float32 [m, s]: the slopes themselves. What float32 cannot hold is not finite: the client abstains."""
    with np.errstate(over="ignore"):
        return slopes.values.astype(np.float32)


@dataclass(frozen=True)
class Algorithm:
    """A method's functions for one run.

    plan: (round t, last decision) -> what the clients do; the same on every rank, nothing is sent.
    ballots: (slopes, t) -> what these m clients send: votes int8 [m, q] in {-1, 0, +1}, or float32 [m, s].
    decide: (what all clients sent, t, last decision) -> what goes into the orbit for round t, header.round_bytes bytes;
    the same input on every rank, so the same decision.  DivergedError if every client abstains.
    decode: (decision, t) -> the update it stands for.
    cumulative: the last decision alone makes the model.
    uplink_bits, downlink_bits: what the method itself needs a client and round (not what a collective carries).
    """

    plan: Callable[[int, Last], Steps]
    decide: Callable[[Tally | Reports, int, Last], bytes]
    decode: Callable[[bytes, int], Update]
    uplink_bits: int
    downlink_bits: int
    ballots: Callable[[Slopes, int], np.ndarray] = reports
    cumulative: bool = False


@dataclass(frozen=True)
class Method:
    """What a recipe names.  name: what an orbit calls it: lower case, digits, hyphens.  traits: see there.

    make: header -> the functions of a run; ValueError, KeyError or TypeError if the header's settings do not fit.
    settings: (section [algorithm], pool of clients) -> what the header says beside lr, directions and the like; its
    "width" is the number of floats in a decision where that is not one a direction.
    For plans: slopes: header -> slopes that a client finds in a round.  moves: header -> directions that are drawn to
    apply one.  apart: header -> has each client directions of its own?  note: what a plan assumes, or nothing.
    """

    name: str
    traits: Traits
    make: Callable[[Header], Algorithm]
    settings: Callable[[Any, Pool], dict[str, Any]] = lambda algorithm, pool: {}
    slopes: Callable[[Header], int] = lambda header: header.directions
    moves: Callable[[Header], int] = lambda header: header.directions
    apart: Callable[[Header], bool] = lambda header: False
    note: str = ""


def directions(run_seed: int, t: int, count: int, slots: Sequence[int] | None = None) -> np.ndarray:
    """Seeds of round t: uint64 [1, count] for all, or [len(slots), count], own ones for the k-th of a cohort."""
    if slots is None:
        return np.array([[derive(run_seed, "direction", t, i) for i in range(count)]], np.uint64)
    return np.array([[derive(run_seed, "direction", t, i, k) for i in range(count)] for k in slots], np.uint64)


def expect_width(header: Header, *shape: int) -> None:
    """ValueError unless a decision holds as many floats: a stranger's settings must not make us draw a billion."""
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


def unpack_floats(decision: bytes, *shape: int) -> np.ndarray:
    """float32 of `shape` from a decision, NaN where a client abstained."""
    values = np.frombuffer(decision, "<f4").astype(np.float32).reshape(shape)
    return np.where(np.isfinite(values), values, np.float32(np.nan))  # an orbit of a stranger may hold infinities
