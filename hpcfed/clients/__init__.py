"""Clients: who holds which data (partition.py), who votes when and on which batch (pool.py)."""

from __future__ import annotations

from .partition import SCHEMES, PartitionReport, partition, partition_report
from .pool import Pool

__all__ = ["SCHEMES", "PartitionReport", "Pool", "partition", "partition_report"]
