"""The two-point probe: dual.py runs it and has the formula, owners.py knows which module owns which parameter.

shadow.py runs it without weights, to find out what it would take.
"""

from __future__ import annotations

from .dual import Probe, slopes
from .owners import Forward

__all__ = ["Forward", "Probe", "slopes"]
