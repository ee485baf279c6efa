"""Clients: who holds which data (partition.py), who votes when and on which batch (pool.py), who lies (attack.py)."""

from __future__ import annotations

from .attack import Attack, flipped
from .partition import BY_CLASS, PARTITIONS, Deal, Parts, partition
from .pool import CentralPool, Pool
from .report import PartitionReport, partition_report

__all__ = [
    "BY_CLASS",
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
