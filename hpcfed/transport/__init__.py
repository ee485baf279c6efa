"""Talk on the client axis: choose how, and end all ranks when one of them cannot go on.

transport = choose(discover(), config.mesh.transport)
with guard(transport):
    ...
transport.close()
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal, NoReturn

from ..env import Launch
from ..errors import HpcfedError, TransportError, first_line
from .base import PeerLostError, Transport, agree, check_same, flush
from .row import Row
from .solo import SoloTransport

__all__ = [
    "PeerLostError",
    "Row",
    "Transport",
    "agent_store",
    "agree",
    "check_same",
    "choose",
    "fail",
    "guard",
    "speaks_mpi",
    "spread",
]


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

    found = pick_device(everybody, launch, device)
    threads = fair_threads(everybody)
    if everybody.rows > 1 and "OMP_NUM_THREADS" not in os.environ:  # mpirun and srun leave it to each rank
        import torch

        torch.set_num_threads(threads)
    if shards == 1:
        everybody.inside = Row(found)
        return everybody
    from .shards import spread as over

    return over(everybody, launch, shards, found)


def agent_store(launch: Launch) -> Any:
    """torch's key-value store that torchrun's agent serves and that outlives the ranks of this attempt, or None."""
    if launch.launcher != "torchrun":
        return None
    from .torchdist import agent_store as found

    return found(launch)


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


def fail(where: Transport | Launch, error: BaseException) -> NoReturn:
    """Say why, once, and end all ranks: what every command does with an exception that nobody caught.

    where: the transport, or the launch while there is none yet.  An error of hpcfed's own is one sentence, another one
    brings its traceback; an error that all rows raise alike is said by row 0 only.
    """
    code = error.code if isinstance(error, SystemExit) else 130 if isinstance(error, KeyboardInterrupt) else 1
    shared = isinstance(where, Transport) and where.is_everywhere(error)
    if not shared or where.rank == 0:
        flush()
        with suppress(OSError, ValueError):
            sys.stderr.write(_message(where, error))  # one write: other ranks speak at the same time
        flush()
    if isinstance(where, Transport):
        if not shared:
            where.abort(code if isinstance(code, int) else 1)
        _leave_together(where)
    elif where.size > 1 and speaks_mpi(where):
        _abort_early()
    raise SystemExit(code)


def _leave_together(transport: Transport) -> None:
    """All rows are here, so nobody has to be torn down, and perhaps before row 0 has spoken."""
    try:
        transport.close()
    except TransportError:
        transport.abort(1)


def _abort_early() -> None:
    """Before there is a transport: join the others in MPI_Init, then abort.

    A rank that just exits while others are inside MPI_Init leaves Open MPI's mpirun hanging at times. Others that do
    not use MPI fail to meet this rank and come here as well.
    """
    from .mpi import load

    try:
        load().COMM_WORLD.Abort(1)
    except TransportError:
        return


def _message(where: Transport | Launch, error: BaseException) -> str:
    several = where.rows > 1 or where.inside.shards > 1 if isinstance(where, Transport) else where.size > 1
    shared = isinstance(where, Transport) and where.is_everywhere(error)
    row = f" (row {where.row})" if isinstance(where, Transport) else ""
    head = f"hpcfed: rank {where.rank}{row}: " if several and not shared else "hpcfed: "
    if isinstance(error, HpcfedError):
        return f"{head}{error}\n"
    if isinstance(error, KeyboardInterrupt):
        return f"{head}interrupted\n"
    if isinstance(error, SystemExit):
        return f"{head}{error.code}\n" if isinstance(error.code, str) else ""
    return f"{head}{type(error).__name__}: {first_line(error)}\n" + "".join(traceback.format_exception(error))


@contextmanager
def guard(where: Transport | Launch) -> Iterator[None]:
    """Whatever leaves this block other than by its end, or by exit status 0, ends all ranks through `fail`."""
    try:
        yield
    except SystemExit as error:
        if error.code not in (0, None):
            fail(where, error)
        raise
    except BaseException as error:
        if type(error).__name__ == "OutOfMemoryError":  # torch's, of a GPU; torch is not loaded for its name
            cure = "lower clients.max_batch_tokens or clients.batch, raise mesh.shards, or take mesh.device=cpu"
            error = HpcfedError(f"{first_line(error)}; {cure}")
        fail(where, error)
