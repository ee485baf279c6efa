"""Freed memory stays with the process, so that the next round's activations find pages that are there already.

glibc gives large blocks back to the system as soon as they are freed, and the next one costs a page fault every 4 kB:
a fifth of a bf16 round of OPT-125M (docs/PERFORMANCE.md).
"""

from __future__ import annotations

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")  # a user's own, which win
LARGEST = 2**30  # bytes of a block that is worth keeping; larger ones are given back


def keep_freed_memory() -> None:
    """From now on, where the C library is glibc."""
    if not os.environ.keys().isdisjoint(SETTINGS):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, -1)  # never
        mallopt(_MMAP_THRESHOLD, LARGEST)
