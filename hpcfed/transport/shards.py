"""Rows of several ranks: a torch.distributed world a row, and a client axis on which shard 0 speaks for its row.

    world of row r    torch's default process group, size = shards: the only thing DeepSpeed sees
    client axis       the transport over all ranks; shards other than 0 add nothing to sums, and what they gather
                      into lists is left out

One world with a group a row would not do: DeepSpeed's tensor parallelism then hangs or, given the groups, sums over
the wrong ranks in silence. A channel a shard index would not do either: whoever draws privacy's noise, or gets a
signal, draws and gets it once a rank, and the shards of a row would go different ways.
"""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
import torch.distributed as dist

from ..errors import ConfigError, TransportError, first_line
from .base import PeerLostError, Transport, lost
from .launch import Launch, meeting_point
from .mesh import MeshShape
from .row import Row
from .torchdist import SILENCE, START, gloo_says, own_address


class RowWorld(Row):
    """Collective over the row: every shard builds one. torch's default world is this row from then on.

    index: of the row.  store: of the row, served by shard 0.  device: of this shard.
    """

    def __init__(self, index: int, shard: int, shards: int, store: dist.Store, device: torch.device) -> None:
        super().__init__(index, device.type)
        assert not dist.is_initialized(), "torch.distributed's default world must be free for the row"
        self.shard, self.shards, self._device = shard, shards, device
        if device.type == "cuda":
            torch.cuda.set_device(device)  # where DeepSpeed puts this shard
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=shard, world_size=shards, timeout=SILENCE)

    def gather(self, data: bytes) -> list[bytes]:
        sizes = [int(size) for size in self._gather(torch.tensor([len(data)]))]
        padded = torch.zeros(max(sizes), dtype=torch.uint8)
        padded[: len(data)] = torch.from_numpy(np.frombuffer(data, np.uint8).copy())
        return [row[:size].numpy().tobytes() for row, size in zip(self._gather(padded), sizes, strict=True)]

    def share(self, vector: np.ndarray) -> None:
        raw = torch.from_numpy(vector.reshape(-1).view(np.uint8)).to(self._device)
        with self.peers():
            dist.broadcast(raw, 0)
        vector.reshape(-1).view(np.uint8)[:] = raw.cpu().numpy()

    def any(self, flag: bool) -> bool:
        return any(bool(said) for said in self._gather(torch.tensor([flag], dtype=torch.uint8)))

    def _gather(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        own = tensor.to(self._device)
        everyone = [torch.empty_like(own) for _ in range(self.shards)]
        with self.peers():
            dist.all_gather(everyone, own)
        return [theirs.cpu() for theirs in everyone]

    @contextmanager
    def peers(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            if isinstance(error, dist.DistError) or "gloo" in str(error):
                raise PeerLostError(lost(gloo_says(error), None, "shard")) from None
            raise

    def close(self) -> None:
        if dist.is_initialized():
            dist.destroy_process_group()


class ShardedTransport(Transport):
    """The client axis of rows of several ranks, on a transport over all ranks of the launch."""

    noun = "rank"

    def __init__(self, everybody: Transport, mesh: MeshShape, row: Row) -> None:
        self._everybody, self._shards, self.row = everybody, mesh.shards, row
        self.name, self.rank = everybody.name, everybody.rank
        self.rows = mesh.rows
        everybody.name_ranks()

    def _sum(self, vector: np.ndarray) -> None:
        vector[:] = self._spoken(vector)
        self._everybody._sum(vector)

    def _gather(self, vector: np.ndarray) -> np.ndarray:
        return self._everybody._gather(self._spoken(vector))[:: self._shards]

    def _spoken(self, vector: np.ndarray) -> np.ndarray:
        """Zeros but from shard 0: answers that others drew for privacy would be further looks at the same vote."""
        return np.zeros_like(vector) if self.row.shard else vector

    def _to_root(self, vector: np.ndarray) -> np.ndarray | None:
        received = self._everybody._to_root(self._spoken(vector))
        return None if received is None else received[:: self._shards]

    def _broadcast(self, vector: np.ndarray, root: int) -> None:
        self._everybody._broadcast(vector, root * self._shards)

    def broadcast(self, data: bytes | None, root: int = 0) -> bytes:
        return self._everybody.broadcast(data, root * self._shards)

    def all_gather(self, data: bytes) -> list[bytes]:
        return self._everybody.all_gather(b"" if self.row.shard else data)[:: self._shards]

    def everyone(self, data: bytes) -> list[bytes]:
        return self._everybody.all_gather(data)

    def barrier(self) -> None:
        self._everybody.barrier()

    def abort(self, code: int) -> NoReturn:
        self._everybody.abort(code)

    def close(self) -> None:
        if self.row.shards > 1:
            self._everybody.barrier()  # else a rank that is still inside a collective of its row loses a peer
            self.row.close()
            self.row = Row(self.row.index)
        self._everybody.close()


def rows_of_shards(everybody: Transport, launch: Launch, shards: int, device: str = "cpu") -> Transport:
    """Collective over all ranks of the launch: its ranks as rows of `shards`.

    device: "cuda" lets the shards of a row talk by NCCL, each on its current GPU.
    Raises ConfigError on every rank alike if `shards` does not divide the ranks.
    """
    try:
        mesh = MeshShape.fit(everybody.rows, shards)
    except ConfigError as e:
        raise everybody.everywhere(e) from None
    if shards == 1:
        return everybody
    row, shard = mesh.row_of(everybody.rank), mesh.shard_of(everybody.rank)
    hosts = [raw.decode() for raw in everybody.all_gather(platform.node().encode())]
    near = len({hosts[rank] for rank in mesh.ranks_of_row(row)}) == 1
    host = "127.0.0.1" if near else _address(launch)
    if near and Path("/sys/class/net/lo").exists():
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # works also where the host's name does not resolve
    try:
        store = None if shard else dist.TCPStore(host, 0, None, True, START, wait_for_workers=False)
        places = everybody.all_gather(f"{host} {store.port if store else 0}".encode())
        if store is None:
            host, port = places[row * shards].decode().split()
            store = dist.TCPStore(host, int(port), None, False, START, wait_for_workers=False)
        here = torch.device("cuda", torch.cuda.current_device()) if device == "cuda" else torch.device("cpu")
        world = RowWorld(row, shard, shards, store, here)
    except (RuntimeError, ValueError, OSError) as error:
        raise TransportError(
            f"the {shards} shards of row {row} did not find each other at {host} within {START.total_seconds():.0f} s: "
            f"{first_line(error)}" + ("" if near else "; GLOO_SOCKET_IFNAME names the network between their hosts")
        ) from None
    world.beside = hosts[::shards].count(hosts[row * shards])
    return ShardedTransport(everybody, mesh, world)


def _address(launch: Launch) -> str:
    """The address of this host for the other hosts of a row."""
    with suppress(ConfigError):  # MPI's launchers name no meeting point
        if address := own_address(launch, meeting_point(launch)):
            return address
    return socket.gethostname()
