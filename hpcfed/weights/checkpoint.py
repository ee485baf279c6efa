"""The trained weights of a dense run: a safetensors file that any tool of the ecosystem reads.

Content   the trained parameters by name, in their dtype; metadata (strings): format, t (rounds done), fingerprint (of
          the whole model), header (JSON), checksum (over all that stands before the tensors)
Promise   the file is complete or not there at all. `load_weights` notices every changed byte: the checksum and a
          canonical form guard what is before the tensors, the model's fingerprint the tensors. Nothing is unpickled.
          Memory: one tensor.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch

from ..atomic import write_atomic
from ..errors import OrbitError, RunFolderError
from ..orbit import Header, safetensors_head
from .weights import Weights, memory

FORMAT = "hpcfed-weights"
MAX_TABLE_BYTES = 100_000_000  # the safetensors library's own limit
_DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
_FACTS = {"format": FORMAT, "t": r"0|[1-9][0-9]{0,14}", "fingerprint": "[0-9a-f]{32}", "header": r"\{.*\}"}


def save_weights(path: str | Path, weights: Weights, t: int, fingerprint: str, header: Mapping[str, Any]) -> int:
    """Put the trained weights after `t` rounds in place of what `path` held; returns the size in bytes.

    fingerprint: weights.fingerprint().  header: what the reader wants to know of the run; goes through JSON.
    Raises RunFolderError and leaves an old file alone if it cannot be written.
    """
    path = Path(path)
    facts = {"format": FORMAT, "t": str(t), "fingerprint": fingerprint, "header": json.dumps(header, sort_keys=True)}
    tensors = (memory(weights.params[name].data.cpu()) for name in _order(weights))
    try:
        return write_atomic(path, itertools.chain([_table(facts, _tensors(weights))], tensors))
    except OSError as error:
        raise RunFolderError(
            f"{path}: cannot write the weights: {error.strerror}; free some space or check the folder's rights, then "
            "go on with --resume"
        ) from None


def load_weights(path: str | Path, weights: Weights) -> tuple[int, dict[str, Any]]:
    """Overwrite the trained weights by those in a file of save_weights; rounds done, and its header.

    Raises OrbitError if the file is damaged, truncated or of another model; `weights` are to be thrown away then.
    """
    path = Path(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a named pipe would block for ever
            raise OrbitError("not a file, so no weights")
        with path.open("rb") as file:
            facts = _read_table(file, weights)
            for name in _order(weights):
                p = weights.params[name]
                buffer = torch.empty_like(p.data, device="cpu")
                if file.readinto(memory(buffer)) != buffer.nbytes:
                    raise OrbitError(f"ends within {name}")
                p.data.copy_(buffer)
    except OrbitError as error:
        raise OrbitError(f"{path}: {error}") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise OrbitError(f"{path}: cannot read these weights: {getattr(error, 'strerror', None) or error}") from None
    if (fingerprint := weights.fingerprint()) != facts["fingerprint"]:
        raise OrbitError(
            f"{path}: with these weights the model has fingerprint {fingerprint}, not {facts['fingerprint']}: a tensor "
            "in it is damaged, or the file belongs to another base model"
        )
    return int(facts["t"]), json.loads(facts["header"])


def read_facts(path: str | Path) -> Header:
    """What a file of save_weights says of its run; OrbitError if there is no such file, or it is damaged.

    The tensors are not looked at.
    """
    path = Path(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise OrbitError("not a file, so no weights")
        with path.open("rb") as file:
            facts = _read_head(file)[0]
    except OrbitError as error:
        raise OrbitError(f"{path}: {error}") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise OrbitError(f"{path}: cannot read these weights: {getattr(error, 'strerror', None) or error}") from None
    return Header.from_json(json.dumps(json.loads(facts["header"]), sort_keys=True, separators=(",", ":")))


def _read_table(file: BinaryIO, weights: Weights) -> dict[str, str]:
    """The metadata of a file that has a right table, the tensors of `weights`, and the right size."""
    facts, tensors, n = _read_head(file)
    if problem := _difference(tensors, _tensors(weights)):
        raise OrbitError(f"weights of another model: {problem}")
    size, right = os.fstat(file.fileno()).st_size, 8 + n + sum(p.nbytes for p in weights.params.values())
    if size != right:
        raise OrbitError(f"{'truncated' if size < right else 'too long'}: {size} bytes, where {right} are right")
    return facts


def _read_head(file: BinaryIO) -> tuple[dict[str, str], dict[str, Any], int]:
    """Metadata, safetensors' table of the tensors, and bytes of both, of a file whose checksum holds."""
    size = os.fstat(file.fileno()).st_size
    start = file.read(8)
    n = int.from_bytes(start, "little")
    if size < 8 or n > MAX_TABLE_BYTES:
        raise OrbitError("not a safetensors file of trained weights")
    if size < 8 + n:
        raise OrbitError(f"truncated: ends at byte {size}, within the table of {8 + n} bytes")
    raw = file.read(n)
    try:
        tensors = json.loads(raw)
        facts = tensors.pop("__metadata__")
        checksum = facts.pop("checksum")
        _ = [entry["dtype"] for entry in tensors.values()], json.loads(facts["header"])
    except (ValueError, RecursionError, LookupError, AttributeError, TypeError):
        raise OrbitError(
            f"damaged, or not written by hpcfed: bytes 8..{7 + n} are no table of trained weights"
        ) from None
    if facts.get("format") != FORMAT or facts.keys() != _FACTS.keys():
        raise OrbitError(f"a safetensors file, but not weights of a run (its metadata does not say {FORMAT!r})")
    formed = all(isinstance(facts[key], str) and re.fullmatch(form, facts[key]) for key, form in _FACTS.items())
    if not formed or checksum != _checksum(facts, tensors) or start + raw != _table(facts, tensors):
        raise OrbitError(f"damaged: bytes 0..{7 + n} do not match their checksum")
    return facts, tensors, n


def _difference(tensors: Mapping[str, Any], expected: Mapping[str, Any]) -> str | None:
    """What is first wrong about a table of tensors."""
    for name in expected:
        if name not in tensors:
            return f"it has no {name} (algorithm.train_only, or the model, is another)"
        theirs, ours = (f"{table[name]['dtype']} {table[name].get('shape')}" for table in (tensors, expected))
        if theirs != ours:
            return f"{name} is {theirs:.60}, not {ours}"
    extra = [name for name in tensors if name not in expected]
    if extra:
        return f"{extra[0]:.60} is no trained parameter of this model"
    return None if tensors == expected else "its tensors are in another order"


def _order(weights: Weights) -> list[str]:
    """Wide dtypes first, so that every tensor is aligned; then by name."""
    return sorted(weights.params, key=lambda name: (-weights.params[name].element_size(), name))


def _tensors(weights: Weights) -> dict[str, dict[str, Any]]:
    """safetensors' table of the tensors."""
    table, at = {}, 0
    for name in _order(weights):
        p = weights.params[name]
        table[name] = {"dtype": _DTYPES[p.dtype], "shape": list(p.shape), "data_offsets": [at, at + p.nbytes]}
        at += p.nbytes
    return table


def _table(facts: Mapping[str, str], tensors: Mapping[str, Any]) -> bytes:
    """All bytes before the tensors."""
    return safetensors_head({"__metadata__": {**facts, "checksum": _checksum(facts, tensors)}, **tensors})


def _checksum(facts: Mapping[str, str], tensors: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps([facts, tensors], sort_keys=True).encode(), digest_size=32).hexdigest()
