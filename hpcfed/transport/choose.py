"""Which transport a launch calls for, and its ranks as rows of shards."""

from __future__ import annotations

import os
from typing import Any, Literal

from ..errors import TransportError
from .base import Transport
from .launch import Launch
from .row import Row
from .solo import SoloTransport


def choose(launch: Launch, setting: Literal["auto", "torch", "mpi"] = "auto", device: str = "cpu") -> Transport:
    """Collective over all ranks of the launch: the transport that its launcher calls for.

    torchrun: torch.  mpirun: mpi.  srun: mpi if srun speaks PMI and an MPI library is there, else torch.  One rank:
    nothing.  device: mesh.device; "cuda" lets torch vote by NCCL if this host has a GPU for every rank on it.
    TransportError if the ranks cannot be connected, ConfigError if torch does not know where to meet.
    """
    if launch.size == 1:
        return SoloTransport()
    if setting == "mpi" or (setting == "auto" and speaks_mpi(launch)):
        from .mpi import MpiTransport

        return MpiTransport(launch)
    from .torchdist import TorchTransport, gpu_for_each

    return TorchTransport(launch, "nccl" if device == "cuda" and gpu_for_each(launch) else "gloo")


def spread(everybody: Transport, launch: Launch, shards: int, device: str = "auto") -> Transport:
    """Collective over all ranks of the launch: its ranks as rows of `shards`, on what mesh.device says.

    Where OMP_NUM_THREADS is not set, the ranks of a node share its cores; mesh.threads comes later and counts.
    """
    from .device import fair_threads, pick_device

    where = pick_device(everybody, launch, device)
    threads = fair_threads(everybody)
    if everybody.rows > 1 and "OMP_NUM_THREADS" not in os.environ:  # mpirun and srun leave it to each rank
        import torch

        torch.set_num_threads(threads)
    if shards == 1:
        everybody.row = Row(everybody.row.index, where)
        return everybody
    from .shards import rows_of_shards

    return rows_of_shards(everybody, launch, shards, where)


def agent_store(launch: Launch) -> Any:
    """torch's key-value store that torchrun's agent serves and that outlives the ranks of this attempt, or None."""
    if launch.launcher != "torchrun":
        return None
    from .torchdist import agent_store as store_of

    return store_of(launch)


def speaks_mpi(launch: Launch) -> bool:
    """Whether mesh.transport="auto" means MPI: the launcher speaks PMI, and mpi4py finds a library."""
    if launch.launcher in ("openmpi", "mpich"):
        return True
    if launch.launcher != "slurm" or not {"PMIX_RANK", "PMI_RANK"} & os.environ.keys():
        return False
    from .mpi import load

    try:
        load()
    except TransportError:
        return False
    return True
