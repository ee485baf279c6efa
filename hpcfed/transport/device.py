"""Where a run computes: every rank on a GPU of its own or every rank on the CPU, on how many cores, with which heap."""

from __future__ import annotations

import ctypes
import json
import os
import platform

import torch

from ..errors import ConfigError
from .base import Transport
from .launch import Launch

# glibc gives large blocks back to the system as soon as they are freed, and the next one costs a page fault every 4 kB:
# a fifth of a bf16 round of OPT-125M (docs/PERFORMANCE.md).
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
HEAP_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")  # a user's own, which win
LARGEST_KEPT = 2**30  # bytes of a block that is worth keeping; larger ones are given back


def pick_device(transport: Transport, launch: Launch, setting: str) -> str:
    """Collective: "cuda", with this rank's GPU as the current one, or "cpu"; the same on every rank.

    setting: mesh.device. Ranks of one node take its GPUs in turn; a launcher may also show each rank one of its own.
    Raises ConfigError on every rank alike if "cuda" is asked for and not every rank has a GPU of its own.
    """
    gpu, index = "", 0
    if setting != "cpu" and torch.cuda.is_available():
        index = launch.local_rank % torch.cuda.device_count()
        gpu = f"{platform.node()} {torch.cuda.get_device_properties(index).uuid}"
    names = [raw.decode() for raw in transport.all_gather(gpu.encode())]
    if all(names) and len(set(names)) == len(names):
        torch.cuda.set_device(index)
        return "cuda"
    if setting == "cuda":
        bare = [str(rank) for rank, name in enumerate(names) if not name]
        who = f"no GPU on rank {', '.join(bare[:8])}" if bare else f"{len(names)} ranks share {len(set(names))} GPUs"
        raise transport.everywhere(ConfigError(f'mesh.device="cuda": {who}; use "auto", "cpu", or a rank a GPU'))
    return "cpu"


def fair_threads(transport: Transport) -> int:
    """Collective: how many threads a rank may use so that none shares a core if it need not; the same on every rank.

    The cores on which the ranks of a node may run, taken together, divided by their number; of all nodes the fewest.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    nodes: dict[str, list[set[int]]] = {}
    for raw in transport.all_gather(json.dumps([platform.node(), cores]).encode()):
        node, allowed = json.loads(raw)
        nodes.setdefault(node, []).append(set(allowed))
    return max(1, min(len(set().union(*ranks)) // len(ranks) for ranks in nodes.values()))


def keep_freed_memory() -> None:
    """From now on freed memory stays with the process, where the C library is glibc: the next round finds it there."""
    if not os.environ.keys().isdisjoint(HEAP_SETTINGS):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, -1)  # never
        mallopt(_MMAP_THRESHOLD, LARGEST_KEPT)
