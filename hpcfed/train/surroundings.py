"""What a result depends on beside the recipe: versions, processors, threads. Between rows they must be alike.

Sums are rounded in another order by another version, or by a processor of other abilities, so a slope near 0 may come
out with the other sign, and which row finds it would matter.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import torch

from ..transport.base import Transport, check_same
from ..transport.launch import Launch, describe

ALIKE = ("hpcfed", "torch", "transformers", "numpy")  # versions that rows must share


def surroundings(launch: Launch, device: str, threads: int) -> dict[str, Any]:
    """What env.json says.  threads: mesh.threads."""
    return describe(launch) | {
        "cpu": _cpu(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "torch_threads": threads or torch.get_num_threads(),
    }


def check_alike(transport: Transport, here: dict[str, Any]) -> None:
    """Collective: ConfigError on every row alike if versions differ between rows, or what their processors can do.

    here: `surroundings`.
    """
    for name in ALIKE:
        check_same(transport, f"the version of {name}", str(here["versions"].get(name)))
    if not here["gpu"]:
        check_same(
            transport,
            "what the processor can do (start on hosts of one kind, or set ATEN_CPU_CAPABILITY=avx2 on all)",
            here["cpu_capability"],
        )


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(errors="replace").splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
