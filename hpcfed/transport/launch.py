"""Who started this process, and which of how many ranks it is: launch discovery as a table.

| launcher | tells us by                                                                       |
|----------|-----------------------------------------------------------------------------------|
| torchrun | RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE with MASTER_ADDR and MASTER_PORT   |
| openmpi  | OMPI_COMM_WORLD_RANK, _SIZE, _LOCAL_RANK, _LOCAL_SIZE                             |
| mpich    | PMI_RANK, PMI_SIZE, MPI_LOCALRANKID, MPI_LOCALNRANKS (MPICH's Hydra, Intel MPI)   |
| slurm    | SLURM_PROCID, SLURM_STEP_NUM_TASKS, SLURM_LOCALID in a step that srun started     |
| alone    | nothing of the above                                                              |

Launchers nest, and the innermost counts: torchrun inside srun or mpirun is torchrun, mpirun inside an allocation is
mpirun. A batch script is no step: its SLURM_NTASKS says what was asked for, not that the script runs many times.
The size found here is only what the launcher says; the transport checks it against what it sees.
"""

from __future__ import annotations

import os
import platform
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError

# srun numbers steps from 0; Slurm's own steps (batch script, interactive shell, extern) lie at the top of 32 bits.
FIRST_SPECIAL_STEP = 0xFFFFFFF0
RECORDED = ("hpcfed", "torch", "numpy", "numba", "transformers", "datasets", "safetensors", "mpi4py", "deepspeed")


@dataclass(frozen=True)
class Launch:
    """One rank of a launch.  launcher: a name of the table.  restart: how often the launcher started the job anew."""

    launcher: str = "alone"
    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    restart: int = 0

    @property
    def one_host(self) -> bool:
        return self.local_size == self.size


@dataclass(frozen=True)
class MeetingPoint:
    """Where torch's key-value store listens.  by_agent: torchrun's agent serves it, otherwise rank 0 does."""

    host: str
    port: int
    by_agent: bool


@dataclass(frozen=True)
class Names:
    """One launcher's variables; `needed` must be set as well, an empty name means it has none."""

    rank: str
    size: str
    local_rank: str
    local_size: str = ""
    restart: str = ""
    needed: tuple[str, ...] = ()


TABLE = {
    "torchrun": Names(
        "RANK",
        "WORLD_SIZE",
        "LOCAL_RANK",
        "LOCAL_WORLD_SIZE",
        "TORCHELASTIC_RESTART_COUNT",
        needed=("MASTER_ADDR", "MASTER_PORT"),
    ),
    "openmpi": Names(
        "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"
    ),
    "mpich": Names("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
    "slurm": Names(
        "SLURM_PROCID",
        "SLURM_STEP_NUM_TASKS",
        "SLURM_LOCALID",
        restart="SLURM_RESTART_COUNT",
        needed=("SLURM_STEP_ID",),
    ),
}


def _integer(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name) if name else None
    if text is None:
        return default
    if not text.isascii() or not text.isdigit():
        raise ConfigError(f"environment variable {name}={text!r}: the launcher should set a whole number there")
    return int(text)


def _tasks_on_this_node(environ: Mapping[str, str]) -> int:
    """From Slurm's counts a node, e.g. "4(x2),1": nodes 0 and 1 run 4 tasks, node 2 runs 1."""
    tasks = environ.get("SLURM_STEP_TASKS_PER_NODE", "1")
    counts: list[int] = []
    for part in tasks.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if not match:
            raise ConfigError(f"environment variable SLURM_STEP_TASKS_PER_NODE={tasks!r} is not a list of counts")
        counts += [int(match[1])] * int(match[2] or 1)
    node = _integer(environ, "SLURM_NODEID", 0)
    return counts[node] if node < len(counts) else 1


def _says(launcher: str, environ: Mapping[str, str]) -> Launch | None:
    """What one launcher's variables say, or None if it did not start this process."""
    names = TABLE[launcher]
    if any(name not in environ for name in (names.rank, names.size, *names.needed)):
        return None
    slurm = launcher == "slurm"
    if slurm and _integer(environ, "SLURM_STEP_ID", 0) >= FIRST_SPECIAL_STEP:
        return None
    launch = Launch(
        launcher,
        _integer(environ, names.rank, 0),
        _integer(environ, names.size, 1),
        _integer(environ, names.local_rank, 0),
        _tasks_on_this_node(environ) if slurm else _integer(environ, names.local_size, 1),
        _integer(environ, names.restart, 0),
    )
    if launch.rank >= launch.size:
        raise ConfigError(
            f"{launcher} says {names.rank}={launch.rank} and {names.size}={launch.size}: ranks count from 0 to size - 1"
        )
    return launch


def discover(environ: Mapping[str, str] = os.environ) -> Launch:
    """The launch of this process. ConfigError if variables are malformed, or one launcher started many jobs."""
    said = {name: launch for name in TABLE if (launch := _says(name, environ)) is not None}
    pmi, slurm = said.get("mpich"), said.get("slurm")
    if pmi and slurm and (pmi.rank, pmi.size) == (slurm.rank, slurm.size):
        del said["mpich"]  # srun --mpi=pmi2 speaks PMI as well; Hydra inside an allocation numbers its ranks itself
    launch = next(iter(said.values()), Launch())
    if launch.launcher == "torchrun":
        agents = _integer(environ, "GROUP_WORLD_SIZE", 1)
        for outer in (other for other in said.values() if other.launcher != "torchrun"):
            if agents == 1 and outer.size > 1 and "TORCHELASTIC_RUN_ID" in environ:
                raise ConfigError(
                    f"{outer.launcher} started torchrun {outer.size} times, each as a job of its own; give torchrun "
                    f"--nnodes={outer.size} and one --rdzv-endpoint, or leave one of the two launchers out"
                )
    return launch


def first_host(nodelist: str) -> str:
    """First name of a Slurm node list: "gpu[07-09,12],cpu1" -> "gpu07"."""
    match = re.match(r"([^\[,]*)(?:\[([^\],-]+)[^\]]*\]([^,\[]*))?", nodelist)
    return "".join(part or "" for part in match.groups()) if match else nodelist


def resolves(host: str) -> bool:
    """Whether a host name has an address here."""
    try:
        return bool(socket.getaddrinfo(host, None))
    except OSError:
        return False


def meeting_point(
    launch: Launch, environ: Mapping[str, str] = os.environ, known: Callable[[str], bool] = resolves
) -> MeetingPoint:
    """Where the ranks find each other without MPI; MASTER_ADDR and MASTER_PORT win, Slurm's own variables come next.

    known: whether a host name has an address.
    """
    host, port = environ.get("MASTER_ADDR", ""), _integer(environ, "MASTER_PORT", 0)
    if launch.launcher == "slurm":
        # Rank 0 serves the store, so this is its node. The port follows from job and step: all ranks find the same.
        # Where node names do not resolve, the node that srun ran on is next best: in a batch job that is the same one.
        first = "127.0.0.1" if launch.one_host else first_host(environ.get("SLURM_STEP_NODELIST", ""))
        host = host or (first if known(first) else environ.get("SLURM_LAUNCH_NODE_IPADDR", first))
        job, step = (_integer(environ, "SLURM_JOB_ID", 0), _integer(environ, "SLURM_STEP_ID", 0))
        port = port or 10000 + (job * 37 + step) % 20000
    if not host or not 0 < port < 65536:
        raise ConfigError(
            f"{launch.launcher} does not say where torch.distributed's ranks meet; set MASTER_ADDR to the host of rank "
            "0 and MASTER_PORT to a free port there (mpirun: -x NAME, or -genv NAME VALUE), or start with torchrun"
        )
    return MeetingPoint(host, port, environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True")


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version  # a fifth of what hpcfed --help loads

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _working_folder() -> str | None:
    """What a recipe's relative paths are relative to."""
    try:
        return str(Path.cwd())
    except OSError:  # it was removed
        return None


def describe(launch: Launch) -> dict[str, object]:
    """What a run folder's env.json says about software, host and launch; no secrets, only names from fixed lists."""
    return {
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in RECORDED},
        "host": platform.node(),
        "folder": _working_folder(),
        "platform": platform.platform(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "launcher": launch.launcher,
        "ranks": launch.size,
        "restart": launch.restart,
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
    }
