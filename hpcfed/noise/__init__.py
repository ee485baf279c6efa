"""Directions by address (noise spec v1): spec.py says what they are, cpu.py draws them fast, engine.py is the door."""

from __future__ import annotations

from .engine import add_fingerprints, fill_, fingerprint, move_, perturb, set_threads

__all__ = ["add_fingerprints", "fill_", "fingerprint", "move_", "perturb", "set_threads"]
