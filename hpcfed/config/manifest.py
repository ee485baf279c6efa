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
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ConfigError, did_you_mean, not_utf8

KEYS = ("id", "data", "weight")
MOST = 2**31 - 1
ITS_OWN = "every client has its own, or their examples would count twice"


@dataclass(frozen=True)
class Entry:
    """One client.  where: how messages call it.  data: absolute path or pattern.  weight: None: its examples.

    named: what is said of every client's data: real path -> how messages call the client; the same for all entries.
    """

    where: str
    id: str
    data: str
    weight: int | None
    named: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)


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
    if not name.strip():
        raise ConfigError(f"clients.manifest={name!r}: is empty; name the file, or leave it out")
    file = Path(name).expanduser()
    try:
        content = file.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as e:
        raise ConfigError(f"clients.manifest={name!r}: cannot read it: {e.strerror}") from None
    lines = content.split(b"\n")  # not splitlines(): an id may hold any other line end
    clients: list[Entry] = []
    first: dict[str, int] = {}
    named: dict[str, str] = {}
    for number, raw in enumerate(lines, 1):
        if not raw.strip():
            continue
        where = f"clients.manifest={name!r}, line {number}"
        try:
            entry = _entry(raw, where, file.parent.absolute(), named)
        except ValueError as e:
            raise ConfigError(f"{where}: {e}") from None
        if entry.id in first:
            raise ConfigError(f"{where}: id {entry.id!r} is that of line {first[entry.id]}; every client needs its own")
        if clients and (entry.weight is None) != (clients[0].weight is None):
            what = "no weight" if entry.weight is None else "a weight"
            raise ConfigError(f"{where}: {what}, unlike the lines before; give all lines one or none")
        if (other := named.setdefault(os.path.realpath(entry.data), entry.where)) != entry.where:
            raise ConfigError(f"{entry.where}: its data, {entry.data}, are those of {other}; {ITS_OWN}")
        first[entry.id] = number
        clients.append(entry)
    if not clients:
        raise ConfigError(f"clients.manifest={name!r}: holds no clients; write one a line: " + _LIKE)
    return Manifest(tuple(clients))


_LIKE = '{"id": "a", "data": "a.jsonl", "weight": 100}'


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON from its pairs. ValueError if a key is there twice, of which the last would count."""
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} twice in one object")
    return found


def _entry(raw: bytes, where: str, folder: Path, named: Mapping[str, str]) -> Entry:
    """ValueError says what is wrong with the line."""
    try:
        fields: Any = json.loads(raw.decode("utf-8"), object_pairs_hook=unique)
    except UnicodeDecodeError as e:
        raise ValueError(not_utf8(raw, e.start)) from None
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
    path = folder / fields["data"]
    # What lies there is meant; only what does not may begin with a home.
    data = str(path) if os.path.lexists(path) else str(folder / os.path.expanduser(fields["data"]))  # noqa: PTH111
    return Entry(f"{where} ({fields['id']!r})", fields["id"], data, weight, named)
