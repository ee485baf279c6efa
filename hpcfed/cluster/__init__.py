"""Slurm jobs: script.py renders what is asked for as a batch script, job.py hands it to Slurm and follows it."""

from __future__ import annotations

from .job import check_limits, follow, queue
from .script import JobSpec, check, render

__all__ = ["JobSpec", "check", "check_limits", "follow", "queue", "render"]
