"""Directions by address (noise spec v1): spec.py says what they are, engine.py is the door.

cpu.py (Numba) and triton.py draw them fast, on CPUs and on GPUs.
"""

from __future__ import annotations

from .engine import add_fingerprints, fill_, fingerprint, move_, perturb, perturb_rows, set_threads

__all__ = ["add_fingerprints", "fill_", "fingerprint", "move_", "perturb", "perturb_rows", "set_threads"]
