"""Directions by address (noise spec v1): spec.py says what they are, engine.py is the door.

cpu.py (Numba) and triton.py draw them fast, on CPUs and on GPUs.
"""

from __future__ import annotations

from .engine import fill_, fingerprint, move_, perturb, perturb_rows, set_threads
from .spec import add_fingerprints

__all__ = ["add_fingerprints", "fill_", "fingerprint", "move_", "perturb", "perturb_rows", "set_threads"]
