"""What doctor finds on ranks that differ: bodies for run_ranks."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from hpcfed.cluster.doctor import examine, facts, report
from hpcfed.config import load_recipe
from hpcfed.transport.base import Transport
from hpcfed.transport.launch import discover


def differ(transport: Transport, folder: str) -> dict[str, Any]:
    """Name of what is wrong on the last rank -> what examine says, on this rank."""
    launch, last = discover(), transport.row.index == transport.rows - 1
    mine = facts(launch, transport, load_recipe("digits", ["clients.group=1"]))
    here, nowhere = Path(folder, "seen"), Path(folder, f"unseen-{transport.row.index}", "run")
    other = {
        "versions": mine["versions"] | {"torch": "1.0"},
        "recipe": "another",
        "backend": "another MPI",
        "threads": mine["threads"] + 1,
        "size": mine["size"] + 1,
    }
    said = {key: examine(transport, mine | ({key: value} if last else {}))[2] for key, value in other.items()}
    said["clocks"] = examine(transport, mine, clock=lambda: time.time() + 60 * last)[2]
    said["unseen"] = examine(transport, mine, nowhere)[2]
    ranks, done, said["well"] = examine(transport, mine, here)
    said["report"] = report(ranks, done, launch.launcher)
    said["left"] = sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*"))
    return said
