"""The sealed orbit: one small safetensors file that rebuilds the fine-tuned weights from the base model.

Content   tensor "votes" uint8 [ceil(rounds * q / 8)]: bit t * q + i (least significant first) is direction i of t,
              or "slopes" float32 [rounds, header.width]
          metadata (strings): format, header (JSON of header.py), rounds, fingerprint (of the final weights), checksum
Size      10,000 rounds of FeedSign (q = 1) are 1,250 bytes and about 1 KB of metadata.
Promise   The bytes are canonical: the same orbit is the same file on every machine. `load` rebuilds the file from what
          it read and compares: any flipped byte and any truncation is an OrbitError. Nothing is executed or unpickled.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from ..atomic import write_atomic
from ..errors import OrbitError
from .header import MAX_HEADER_BYTES, Header, parse_json, read_regular
from .journal import MAGIC, parse_journal

FORMAT = "hpcfed-orbit"
JOURNAL, ORBIT, WEIGHTS = "journal", "orbit.safetensors", "weights.safetensors"  # of a run folder


@dataclass(frozen=True)
class Orbit:
    """decisions: one a round.  fingerprint: of the final weights, None for a journal.  notes: what to tell the user."""

    header: Header
    decisions: list[bytes]
    fingerprint: str | None
    path: Path
    notes: tuple[str, ...] = ()

    @property
    def rounds(self) -> int:
        """Number of rounds."""
        return len(self.decisions)


def seal(path: str | Path, header: Header, decisions: Sequence[bytes], fingerprint: str) -> int:
    """Write, verify and put in place; returns the size in bytes. Raises OrbitError and leaves an old file alone."""
    path = Path(path)
    assert re.fullmatch("[0-9a-f]{32}", fingerprint), "a fingerprint has 32 hex digits"
    assert all(header.decision_problem(decision) is None for decision in decisions)
    data = _pack(header, decisions)
    raw = _to_bytes(header, len(decisions), data, fingerprint)

    def check(fresh: Path) -> None:
        back = load(fresh)
        (tensor,) = safetensors.numpy.load_file(fresh).values()  # what every other tool will do with it
        same = (back.header, back.decisions, back.fingerprint) == (header, list(decisions), fingerprint)
        if not same or tensor.tobytes() != data:
            raise OrbitError(f"{fresh}: what was read back is not what was written; the disk is not to be trusted")

    try:
        return write_atomic(path, raw, check)
    except (OSError, safetensors.SafetensorError) as error:
        problem = getattr(error, "strerror", None) or error
        raise OrbitError(f"{path}: cannot write the orbit: {problem}; the journal is untouched") from None


def safetensors_head(table: Mapping[str, Any]) -> bytes:
    """All that stands before the tensors of a safetensors file.

    Written here and not by the library, whose order of metadata changes from run to run.
    """
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # safetensors aligns the tensors to 8 bytes
    return len(text).to_bytes(8, "little") + text


def sealed_bytes(header: Header, rounds: int) -> int:
    """How large a sealed orbit of so many rounds is."""
    return len(_to_bytes(header, rounds, b"", "0" * 32)) + _tensor(header, rounds)[3]


def load(path: str | Path) -> Orbit:
    """The orbit in a sealed file, every byte of it verified."""
    path = Path(path)
    return _checked(path, read_regular(path, "orbit"))


def _checked(path: Path, raw: bytes) -> Orbit:
    try:
        header, decisions, fingerprint = _from_bytes(raw)
    except OrbitError as error:
        raise OrbitError(f"{path}: {error}") from None
    return Orbit(header, decisions, fingerprint, path)


def load_any(path: str | Path) -> Orbit:
    """The orbit in a journal, a sealed file, or a run folder with either or both.

    Of both the one of the longer run; sealed on a tie. With keep_best (header.task has "kept") a run is longer than its
    sealed orbit: it had all of the planned rounds.
    """
    path = Path(path)
    if path.is_dir():
        return _load_folder(path)
    raw = read_regular(path, "orbit or journal")
    if not raw.startswith(MAGIC):
        return _checked(path, raw)
    header, decisions, repaired = parse_journal(path, raw)
    return Orbit(header, decisions, None, path, (repaired,) if repaired else ())


def _load_folder(folder: Path) -> Orbit:
    orbits: list[Orbit] = []
    problems: list[str] = []
    for name in (ORBIT, JOURNAL):
        if (folder / name).exists():
            try:
                orbits.append(load_any(folder / name))
            except OrbitError as error:
                problems.append(str(error))
    if not orbits and (folder / WEIGHTS).exists():
        raise OrbitError(f"{folder}: a run without an orbit: its method sends dense weights ({WEIGHTS} there)")
    if not orbits:
        raise OrbitError("; ".join(problems) or f"{folder}: neither {ORBIT} nor {JOURNAL} in this folder")
    best = max(orbits, key=_run)  # the first of equals: sealed
    if problems and "kept" in best.header.task and best.rounds >= best.header.schedule["rounds"]:
        raise OrbitError(
            f"{'; '.join(problems)}; {JOURNAL} has all rounds, not only those that were kept; name it if they will do"
        )
    for other in orbits:
        common = min(other.rounds, best.rounds)
        if lasting(other.header) != lasting(best.header) or other.decisions[:common] != best.decisions[:common]:
            raise OrbitError(f"{folder}: {ORBIT} and {JOURNAL} are of different runs; name one of the files")
    return Orbit(best.header, best.decisions, best.fingerprint, best.path, (*best.notes, *problems))


def _run(orbit: Orbit) -> int:
    """Rounds that its run had behind it, of which keep_best may have kept fewer."""
    chosen = orbit.fingerprint is not None and "kept" in orbit.header.task
    return max(orbit.rounds, orbit.header.schedule["rounds"]) if chosen else orbit.rounds


def lasting(header: Header) -> Header:
    """The header without the number of rounds that were planned, where no step size depends on it."""
    if header.schedule["name"] != "constant":
        return header
    return replace(header, schedule={**header.schedule, "rounds": 0})


def _pack(header: Header, decisions: Sequence[bytes]) -> bytes:
    """The tensor's bytes."""
    raw = b"".join(decisions)
    if header.payload == "floats" or header.directions % 8 == 0 or not raw:
        return raw
    rows = np.frombuffer(raw, np.uint8).reshape(len(decisions), -1)
    bits = np.unpackbits(rows, axis=1, count=header.directions, bitorder="little")
    return np.packbits(bits.reshape(-1), bitorder="little").tobytes()


def _unpack(header: Header, rounds: int, data: bytes) -> list[bytes]:
    """The decision of every round from the tensor's bytes, which have the right size."""
    q, n = header.directions, header.round_bytes
    if header.payload == "signs" and q % 8 and rounds:
        bits = np.unpackbits(np.frombuffer(data, np.uint8), count=rounds * q, bitorder="little")
        data = np.packbits(bits.reshape(rounds, q), axis=1, bitorder="little").tobytes()
    return [data[i : i + n] for i in range(0, rounds * n, n)]


def _tensor(header: Header, rounds: int) -> tuple[str, str, list[int], int]:
    """Name, dtype, shape and bytes of the one tensor."""
    if header.payload == "signs":
        size = (rounds * header.directions + 7) // 8
        return "votes", "U8", [size], size
    return "slopes", "F32", [rounds, header.width], 4 * rounds * header.width


def _to_bytes(header: Header, rounds: int, data: bytes, fingerprint: str) -> bytes:
    """The file."""
    facts = {"format": FORMAT, "header": header.to_json(), "rounds": str(rounds), "fingerprint": fingerprint}
    digest = hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=32)
    digest.update(data)
    name, dtype, shape, size = _tensor(header, rounds)
    table = {
        "__metadata__": {**facts, "checksum": digest.hexdigest()},
        name: {"dtype": dtype, "shape": shape, "data_offsets": [0, size]},
    }
    return safetensors_head(table) + data


def _from_bytes(raw: bytes) -> tuple[Header, list[bytes], str]:
    n = int.from_bytes(raw[:8], "little")
    if len(raw) < 8 or n > MAX_HEADER_BYTES:
        raise OrbitError("not an orbit: it starts neither like a safetensors file nor like a journal")
    if len(raw) < 8 + n:
        raise OrbitError(f"truncated: ends at byte {len(raw)}, within the header of {8 + n} bytes; the votes are lost")
    facts = parse_json(raw[8 : 8 + n], "safetensors header (byte 8)").get("__metadata__")
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise OrbitError(f"a safetensors file, but not an orbit (its metadata does not say format {FORMAT!r})")
    if not all(isinstance(facts.get(key), str) for key in ("header", "rounds", "fingerprint", "checksum")):
        raise OrbitError("damaged: the metadata lacks header, rounds, fingerprint or checksum")
    if not re.fullmatch(r"0|[1-9][0-9]{0,14}", facts["rounds"]):
        raise OrbitError(f"damaged: rounds={facts['rounds']!r:.40} is not a number of rounds")
    for key, digits in (("fingerprint", 32), ("checksum", 64)):
        if not re.fullmatch(f"[0-9a-f]{{{digits}}}", facts[key]):
            raise OrbitError(f"damaged: {key}={facts[key]!r:.40} is not {digits} hex digits")
    header, rounds, data = Header.from_json(facts["header"]), int(facts["rounds"]), raw[8 + n :]
    size = _tensor(header, rounds)[3]
    if len(data) != size:
        what = "truncated" if len(data) < size else "too long"
        raise OrbitError(f"{what}: {len(data)} bytes from byte {8 + n} on, where {rounds} rounds take {size}")
    again = _to_bytes(header, rounds, data, facts["fingerprint"])
    if again != raw:
        raise OrbitError(_difference(raw, again, facts["checksum"], 8 + n))
    decisions = _unpack(header, rounds, data)
    if _pack(header, decisions) != data:
        raise OrbitError(f"damaged: bits are set beyond round {rounds - 1} in the last byte")
    return header, decisions, facts["fingerprint"]


def _difference(raw: bytes, again: bytes, checksum: str, start: int) -> str:
    if f'"checksum":"{checksum}"'.encode() not in again:
        return (
            f"damaged: the checksum over the header (bytes 8..{start - 1}) and the rounds (from byte {start} on) does "
            "not hold, so no round of it can be trusted; the journal of the run, if kept, has the same rounds"
        )
    at = next((i for i, (a, b) in enumerate(zip(raw, again, strict=False)) if a != b), min(len(raw), len(again)))
    return f"damaged or rewritten by another tool: the file is not in canonical form from byte {at} on"
