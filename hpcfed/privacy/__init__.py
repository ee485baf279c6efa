"""Differential privacy of one client's vote: how it is made (mechanism.py), what a run of it costs (accountant.py)."""

from __future__ import annotations

from .accountant import Forecast, Ledger, amplified, forecast, most_votes, total_epsilon
from .mechanism import majority, respond

__all__ = [
    "Forecast", "Ledger", "amplified", "forecast", "majority", "most_votes", "respond", "total_epsilon",
]  # fmt: skip
