"""The two-point probe: dual.py runs it and has the formula, owners.py knows which module owns which parameter."""

from __future__ import annotations

from .dual import Probe, slopes

__all__ = ["Probe", "slopes"]
