"""The manifest: clients whose data lie in files of their own, one client a line.

    {"id": "clinic-7", "data": "clinic-7/train.jsonl", "weight": 412}

    id       any text, once in the file. Clients are numbered by their lines, from 0: that number is what an attack, a
             group and a cohort mean, so the order of the lines is part of the run.
    data     a file, a pattern or a folder, as task.data may be; of a folder the split task.train_split ("train").
             Relative paths are relative to the folder of the manifest.
    weight   how much the client counts in a weighted mean (FedKSeed, FedAvg, FedSGD), an integer; all lines have one or
             none has: then it is the number of examples, which the row that hosts the client counts.

JSON lines rather than CSV: an id or a path may hold commas, quotes and blanks, and a weight is a number or an error.
Nothing here opens a client's data; only the row that hosts it does.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError, did_you_mean

KEYS = ("id", "data", "weight")
MOST = 2**31 - 1


@dataclass(frozen=True)
class Entry:
    """One client.  where: how messages call it.  data: absolute path or pattern.  weight: None: its examples."""

    where: str
    id: str
    data: str
    weight: int | None


@dataclass(frozen=True)
class Manifest:
    """clients: in the order of the lines."""

    clients: tuple[Entry, ...]

    @property
    def weights(self) -> list[int] | None:
        """Of every client; None: the numbers of their examples."""
        return None if self.clients[0].weight is None else [client.weight or 0 for client in self.clients]

    def digest(self) -> str:
        """128 bits of ids and weights, in order; paths may differ from host to host."""
        told = json.dumps([[client.id, client.weight] for client in self.clients])
        return hashlib.blake2b(told.encode(), digest_size=16).hexdigest()


def read_manifest(name: str) -> Manifest:
    """The manifest in file `name`. ConfigError with the line and the cure for the first that is wrong."""
    file = Path(name).expanduser()
    try:
        lines = file.read_bytes().split(b"\n")  # not splitlines(): an id may hold any other line end
    except OSError as e:
        raise ConfigError(f"clients.manifest={name!r}: cannot read it: {e.strerror}") from None
    clients: list[Entry] = []
    first: dict[str, int] = {}
    for number, raw in enumerate(lines, 1):
        if not raw.strip():
            continue
        where = f"clients.manifest={name!r}, line {number}"
        try:
            entry = _entry(raw, where, file.parent.absolute())
        except ValueError as e:
            raise ConfigError(f"{where}: {e}") from None
        if entry.id in first:
            raise ConfigError(f"{where}: id {entry.id!r} is that of line {first[entry.id]}; every client needs its own")
        if clients and (entry.weight is None) != (clients[0].weight is None):
            what = "no weight" if entry.weight is None else "a weight"
            raise ConfigError(f"{where}: {what}, unlike the lines before; give all lines one or none")
        first[entry.id] = number
        clients.append(entry)
    if not clients:
        raise ConfigError(f"clients.manifest={name!r}: holds no clients; write one a line: " + _LIKE)
    return Manifest(tuple(clients))


_LIKE = '{"id": "a", "data": "a.jsonl", "weight": 100}'


def _entry(raw: bytes, where: str, folder: Path) -> Entry:
    """ValueError says what is wrong with the line."""
    try:
        fields: Any = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as e:
        raise ValueError(f"not UTF-8 text (byte {e.start + 1})") from None
    except (json.JSONDecodeError, RecursionError) as e:
        raise ValueError(f"not JSON ({e}); write {_LIKE}") from None
    if not isinstance(fields, dict):
        raise ValueError(f"not a JSON object; write {_LIKE}")
    if unknown := [key for key in fields if key not in KEYS]:
        raise ValueError(f"{unknown[0]!r} is not one of {', '.join(KEYS)}{did_you_mean(unknown[0], KEYS)}")
    for key in ("id", "data"):
        if not isinstance(fields.get(key), str) or not fields[key].strip():
            got = f"{fields[key]!r} is no text" if key in fields else "is missing"
            raise ValueError(f"{key} {got}; write {_LIKE}")
    weight = fields.get("weight")
    if weight is not None and (type(weight) is not int or not 1 <= weight <= MOST):
        raise ValueError(
            f"weight {weight!r} must be an integer from 1 to {MOST:,}; only ratios count, so fractions may all be "
            "multiplied by the same number; leave it out on all lines to weigh by examples"
        )
    data = str(folder / Path(fields["data"]).expanduser())
    return Entry(f"{where} ({fields['id']!r})", fields["id"], data, weight)
