"""Clients: who holds which data (partition.py), who votes when and on which batch (pool.py), who lies (attack.py)."""

from __future__ import annotations

from .attack import Attack, flipped
from .partition import PARTITIONS, Deal, PartitionReport, Parts, partition, partition_report
from .pool import CentralPool, Pool

__all__ = [
    "PARTITIONS",
    "Attack",
    "CentralPool",
    "Deal",
    "PartitionReport",
    "Parts",
    "Pool",
    "flipped",
    "partition",
    "partition_report",
]
