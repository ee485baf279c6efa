"""Differential privacy of one client's vote: hooks.py is what a round asks, mechanism.py how a vote is made private.

accountant.py says what a run of it costs, budget.py what this run has spent.
"""

from __future__ import annotations

from .accountant import Forecast, Ledger, amplified, forecast, most_votes, total_epsilon
from .hooks import MECHANISMS, Privacy, make_privacy
from .mechanism import majority, respond

__all__ = [
    "MECHANISMS", "Forecast", "Ledger", "Privacy", "amplified", "forecast", "majority", "make_privacy", "most_votes",
    "respond",
    "total_epsilon",
]  # fmt: skip
