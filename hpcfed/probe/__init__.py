"""The two-point probe: slope.py has the formula, dual.py runs a model on both sides in one pass.

owners.py knows which module owns which parameter, packing.py leaves padding out of products; graphs.py replays
a pass on a GPU by one launch; shadow.py runs the probe without weights, to find out what it would take.
"""

from __future__ import annotations

from .dual import Probe
from .owners import Forward
from .slope import slopes

__all__ = ["Forward", "Probe", "slopes"]
