"""The orbit: what was decided in every round, as a live journal and as a sealed file. See DESIGN 5.2."""

from __future__ import annotations

from .header import Header, pack_signs, public_name, unpack_signs
from .journal import Journal, read_journal
from .sealed import Orbit, load, load_any, seal, sealed_bytes

__all__ = [
    "Header",
    "Journal",
    "Orbit",
    "load",
    "load_any",
    "pack_signs",
    "public_name",
    "read_journal",
    "seal",
    "sealed_bytes",
    "unpack_signs",
]
