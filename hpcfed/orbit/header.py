"""What an orbit says about itself, and how the decisions of a round become bytes.

An orbit is a header and one decision of fixed size a round. The header names everything that replay needs beside
the base model; it is canonical JSON, so equal headers are equal bytes and a hash of it means something.

Legend   q: directions a round.  signs: q votes in {-1, +1}, bit i of the decision (least significant bit of byte 0
         first) is set when direction i was decided +1, unused bits are 0.  floats: `width` little-endian float32.
Promise  whatever the bytes, loading gives a valid Header or an OrbitError; nothing is executed or unpickled.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import OrbitError, did_you_mean

MAX_HEADER_BYTES = 2**20
MAX_FILE_BYTES = 2**33  # read whole into memory: a stranger's sparse terabyte must not take the machine down
MAX_DIRECTIONS = 2**20
MAX_WIDTH = 2**24  # floats a round
CHOICES = {
    "distribution": ("gaussian", "rademacher"),
    "rounding": ("stochastic", "nearest"),
    "dtype": ("float32", "bfloat16", "float16"),
    "payload": ("signs", "floats"),
    "kind": ("causal-lm", "masked-lm", "sequence-classification", "image-classification"),
}
OPTIONAL = ("settings", "task")  # not there where there is nothing to say
SCHEDULES = ("constant", "linear", "cosine")
_HEX = re.compile(r"[0-9a-f]{32}")
_SURROGATE = re.compile("[\ud800-\udfff]")  # JSON can spell half a character, which nothing can print
_ALGORITHM = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


@dataclass(frozen=True)
class Header:
    """Everything but the base model that the decisions need to become weights; raises OrbitError if it cannot be true.

    algorithm: recipe name.  run_seed: 64 bit.  directions: q.  lr: step size of round 0 after warm-up.
    schedule: name, warmup (rounds), rounds (planned), final (lr at the end, as the schedule defines it).
    base_model: see `public_name`.  base_fingerprint, layout_hash: 32 hex digits.  train_only: name patterns.
    kind, labels: what the base model is loaded as, and the names of a classifier's classes.
    settings: what else the algorithm needs to know, as its file says; "width": floats in a decision (default: q).
    task: for who uses the model, how its examples were put (name, prompt, verbalizers, ...); replay does not need it.
    """

    algorithm: str
    run_seed: int
    directions: int
    lr: float
    schedule: Mapping[str, Any]
    distribution: str
    rounding: str
    dtype: str
    base_model: str
    base_fingerprint: str
    layout_hash: str
    train_only: Sequence[str]
    payload: str
    kind: str
    labels: Sequence[str]
    version: int = 1
    noise: int = 1
    settings: Mapping[str, Any] = field(default_factory=dict)
    task: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_int("version", self.version, 1, 1)
        _check_int("noise", self.noise, 1, 1)
        _check_text("algorithm", self.algorithm, _ALGORITHM, "a recipe name in small letters")
        _check_int("run_seed", self.run_seed, 0, 2**64 - 1)
        _check_int("directions", self.directions, 1, MAX_DIRECTIONS)
        lr = _check_float("lr", self.lr)
        if lr <= 0:
            raise OrbitError(f"orbit header: lr={lr!r} must be above 0")
        for key, known in CHOICES.items():
            _check_choice(key, getattr(self, key), known)
        _check_model_name(self.base_model)
        for key in ("base_fingerprint", "layout_hash"):
            _check_text(key, getattr(self, key), _HEX, "32 lower-case hex digits")
        # Plain copies, so that a header cannot change after its hash or journal was written.
        object.__setattr__(self, "lr", lr)
        object.__setattr__(self, "schedule", _checked_schedule(self.schedule))
        for key in ("train_only", "labels"):
            object.__setattr__(self, key, _checked_strings(key, getattr(self, key)))
        for key in OPTIONAL:
            object.__setattr__(self, key, _checked_settings(key, getattr(self, key)))
        if "width" in self.settings:
            _check_int("settings.width", self.settings["width"], 1, MAX_WIDTH)

    @property
    def width(self) -> int:
        """Signs or floats in one round's decision."""
        return int(self.settings.get("width", self.directions)) if self.payload == "floats" else self.directions

    @property
    def round_bytes(self) -> int:
        """Size of one round's decision."""
        return (self.width + 7) // 8 if self.payload == "signs" else 4 * self.width

    def decision_problem(self, decision: bytes) -> str | None:
        """What is wrong with one round's decision, or None."""
        if len(decision) != self.round_bytes:
            return f"has {len(decision)} bytes, where {self.width} {self.payload} take {self.round_bytes}"
        spare = -self.directions % 8
        if self.payload == "signs" and decision[-1] >> (8 - spare):
            return f"sets bits beyond its {self.directions} directions"
        return None

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no blanks, ASCII; without settings and task where there are none."""
        fields = {key: value for key, value in dataclasses.asdict(self).items() if value or key not in OPTIONAL}
        return json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)

    @staticmethod
    def from_json(text: str | bytes) -> Header:
        """The header that `to_json` wrote; raises OrbitError for anything else."""
        fields = parse_json(text, "orbit header")
        known = [f.name for f in dataclasses.fields(Header)]
        _check_int("version", fields.get("version"), 1, 1)  # first: another version may have other fields
        for key in fields:
            if key not in known:
                raise OrbitError(f"orbit header: {_show(key)} is not a field" + did_you_mean(key[:40], known))
        if missing := [key for key in known if key not in fields and key not in OPTIONAL]:
            raise OrbitError(f"orbit header: {', '.join(missing)} missing")
        header = Header(**fields)
        if header.to_json().encode() != (text.encode(errors="replace") if isinstance(text, str) else text):
            raise OrbitError("orbit header: its JSON is not in canonical form, so hpcfed did not write it")
        return header


def parse_json(text: str | bytes, what: str) -> dict[str, Any]:
    """A JSON object without duplicate keys, NaN or infinity; OrbitError for everything else."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) != len(pairs):
            raise ValueError("a key occurs twice")
        return fields

    def constant(name: str) -> None:
        raise ValueError(f"{name} is not a number")

    if len(text) > MAX_HEADER_BYTES:
        raise OrbitError(f"{what}: {len(text)} bytes, more than the {MAX_HEADER_BYTES} that are allowed")
    try:
        if isinstance(text, bytes):
            text = text.decode()
        fields = json.loads(text, object_pairs_hook=unique, parse_constant=constant)
    except (ValueError, RecursionError) as error:  # ValueError covers JSON, UTF-8 and integers of 5,000 digits
        raise OrbitError(f"{what}: not valid JSON ({error})") from None
    if not isinstance(fields, dict):
        raise OrbitError(f"{what}: a JSON {type(fields).__name__}, not an object")
    return fields


def public_name(model: str) -> str:
    """What an orbit may tell strangers about where the base model was: the hub name, or a local folder's last name."""
    local = model.startswith((".", "~", "/")) or model.count("/") > 1
    with contextlib.suppress(OSError, RuntimeError, ValueError):  # too long a name, no such ~user, a zero byte
        path = Path(model).expanduser()
        if local or path.exists():
            local, model = True, path.resolve().name
    parts = [part for part in model.split("/") if part not in ("", ".", "..")]
    name = "/".join(parts[-1:] if local else parts[-2:])[-200:].strip("/")
    return "".join(c if c.isprintable() and c != "\\" else "_" for c in name) or "model"


def pack_signs(signs: np.ndarray) -> bytes:
    """Payload of one round; signs: [q], every entry above 0 is +1 and every other -1."""
    return np.packbits(np.asarray(signs) > 0, bitorder="little").tobytes()


def unpack_signs(decision: bytes, directions: int) -> np.ndarray:
    """int8 [q] in {-1, +1} from the decision of one round."""
    bits = np.unpackbits(np.frombuffer(decision, np.uint8), count=directions, bitorder="little")
    return bits.astype(np.int8) * np.int8(2) - np.int8(1)


def read_regular(path: Path, what: str) -> bytes:
    """All bytes of a regular file; OrbitError if there is none, it is something else or it cannot be read."""
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode):  # a named pipe would block for ever
            raise OrbitError(f"{path}: not a file, so no {what}")
        if info.st_size > MAX_FILE_BYTES:
            raise OrbitError(f"{path}: {info.st_size} bytes, larger than any {what} (at most {MAX_FILE_BYTES})")
        return path.read_bytes()
    except (OSError, MemoryError, ValueError) as error:  # ValueError: a zero byte in the path
        raise OrbitError(f"{path}: cannot read this {what}: {getattr(error, 'strerror', None) or error}") from None


def _show(value: object) -> str:
    """A value in a message. Never repr of a list or object: a stranger's nesting would overflow the stack."""
    return f"{value!r:.60}" if isinstance(value, str | int | float) else f"a {type(value).__name__}"


def _check_int(key: str, value: object, low: int, high: int) -> None:
    if type(value) is not int:  # bool is an int, and True is no version
        raise OrbitError(f"orbit header: {key}={_show(value)} must be an integer")
    if not low <= value <= high:
        if key in ("version", "noise"):
            raise OrbitError(f"orbit header: {key} {_show(value)} is unknown to this hpcfed, which reads {high}")
        raise OrbitError(f"orbit header: {key}={_show(value)} must lie in {low}..{high}")


def _check_float(key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise OrbitError(f"orbit header: {key}={_show(value)} must be a number")
    if not (abs(value) < 2**1000 and math.isfinite(value)):  # the comparison first: float(10**400) raises
        raise OrbitError(f"orbit header: {key}={_show(value)} must be finite")
    return float(value)


def _check_text(key: str, value: object, pattern: re.Pattern[str], right: str) -> None:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise OrbitError(f"orbit header: {key}={_show(value)} must be {right}")


def _check_choice(key: str, value: object, known: Sequence[str]) -> None:
    if value not in known:
        raise OrbitError(f"orbit header: {key}={_show(value)} must be one of {', '.join(known)}")


def _check_model_name(name: object) -> None:
    good = isinstance(name, str) and len(name) <= 200 and name.isprintable() and "\\" not in name
    parts = name.split("/") if isinstance(name, str) else []
    if not good or len(parts) > 2 or any(part in ("", ".", "..") for part in parts):
        raise OrbitError(f"orbit header: base_model={_show(name)} must be a hub name or a folder's last name")


def _checked_schedule(schedule: object) -> dict[str, Any]:
    keys = ("name", "warmup", "rounds", "final")
    if not isinstance(schedule, Mapping) or set(schedule) != set(keys):
        raise OrbitError(f"orbit header: schedule must have exactly the keys {', '.join(keys)}")
    _check_choice("schedule.name", schedule["name"], SCHEDULES)
    _check_int("schedule.warmup", schedule["warmup"], 0, 2**63 - 1)
    _check_int("schedule.rounds", schedule["rounds"], 0, 2**63 - 1)
    final = _check_float("schedule.final", schedule["final"])
    if final < 0:
        raise OrbitError(f"orbit header: schedule.final={final!r} must not be negative")
    return {key: final if key == "final" else schedule[key] for key in keys}


def _checked_strings(key: str, strings: object) -> tuple[str, ...]:
    texts: tuple[Any, ...] = tuple(strings) if isinstance(strings, list | tuple) else (None,)
    if not all(isinstance(s, str) and not _SURROGATE.search(s) for s in texts):
        raise OrbitError(f"orbit header: {key} must be a list of strings")
    return texts


def _checked_settings(where: str, settings: object, depth: int = 0) -> Any:
    """A plain copy of nested mappings and lists of strings and finite numbers, at most three deep."""
    if isinstance(settings, Mapping) and depth < 3 and all(isinstance(key, str) for key in settings):
        if not any(_SURROGATE.search(key) for key in settings):
            return {key: _checked_settings(where, value, depth + 1) for key, value in settings.items()}
    elif isinstance(settings, list | tuple) and depth in (1, 2):
        return [_checked_settings(where, value, 3) for value in settings]
    elif depth and isinstance(settings, bool | int):
        _check_int(where, int(settings), -(2**63), 2**64 - 1)
        return settings
    elif depth and isinstance(settings, float):
        return _check_float(where, settings)
    elif depth and isinstance(settings, str) and not _SURROGATE.search(settings):
        return settings
    raise OrbitError(f"orbit header: {where} must be names with strings, numbers, or short lists of them")
