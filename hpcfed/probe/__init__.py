"""The two-point probe: slopes.py has the formula and the clients, dual.py runs a model on both sides in one pass.

draws.py perturbs weights, owners.py knows which module owns which of them, trial.py finds it out; packing.py leaves
padding out of products, hosted.py makes batches of clients' examples; graphs.py replays a pass on a GPU by one launch;
shadow.py runs the probe without weights, to find out what it would take.
"""

from __future__ import annotations

from .dual import Probe

__all__ = ["Probe"]
