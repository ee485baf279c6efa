"""Where a run computes: every rank on a GPU of its own, or every rank on the CPU; and on how many cores of it."""

from __future__ import annotations

import json
import os
import platform

import torch

from ..env import Launch
from ..errors import ConfigError
from .base import Transport


def pick_device(transport: Transport, launch: Launch, setting: str) -> str:
    """Collective: "cuda", with this rank's GPU as the current one, or "cpu"; the same on every rank.

    setting: mesh.device. Ranks of one node take its GPUs in turn; a launcher may also show each rank one of its own.
    Raises ConfigError on every rank alike if "cuda" is asked for and not every rank has a GPU of its own.
    """
    gpu, index = "", 0
    if setting != "cpu" and torch.cuda.is_available():
        index = launch.local_rank % torch.cuda.device_count()
        gpu = f"{platform.node()} {torch.cuda.get_device_properties(index).uuid}"
    held = [raw.decode() for raw in transport.all_gather(gpu.encode())]
    if all(held) and len(set(held)) == len(held):
        torch.cuda.set_device(index)
        return "cuda"
    if setting == "cuda":
        bare = [str(rank) for rank, found in enumerate(held) if not found]
        who = f"no GPU on rank {', '.join(bare[:8])}" if bare else f"{len(held)} ranks share {len(set(held))} GPUs"
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
