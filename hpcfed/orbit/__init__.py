"""The orbit: what was decided in every round. header.py: what it says of itself; journal.py: live; sealed.py: ended."""

from __future__ import annotations

from .header import Header, pack_signs, public_name, unpack_signs
from .journal import Journal, read_journal
from .sealed import JOURNAL, ORBIT, WEIGHTS, Orbit, lasting, load, load_any, safetensors_head, seal, sealed_bytes

__all__ = [
    "JOURNAL",
    "ORBIT",
    "WEIGHTS",
    "Header",
    "Journal",
    "Orbit",
    "lasting",
    "load",
    "load_any",
    "pack_signs",
    "public_name",
    "read_journal",
    "safetensors_head",
    "seal",
    "sealed_bytes",
    "unpack_signs",
]
