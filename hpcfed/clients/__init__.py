"""Clients: who holds which data (partition.py), who votes when and on which batch (pool.py), who lies (attack.py)."""

from __future__ import annotations

from .attack import Attack, flipped
from .partition import SCHEMES, PartitionReport, Parts, partition, partition_report
from .pool import CentralPool, Pool

__all__ = [
    "SCHEMES",
    "Attack",
    "CentralPool",
    "PartitionReport",
    "Parts",
    "Pool",
    "flipped",
    "partition",
    "partition_report",
]
