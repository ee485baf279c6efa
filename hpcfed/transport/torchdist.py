"""The client axis over torch.distributed: a store and a process group object of its own.

torch's default world stays free for whatever spreads a model over the ranks of one row, which takes that world to be
its own. After torchrun restarts a job, the addresses of the dead attempt are still in the agent's store: every attempt
has a part of the store to itself (`_fresh_part`).
"""

from __future__ import annotations

import atexit
import os
import platform
import queue
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Literal, NoReturn

import numpy as np
import torch
import torch.distributed as dist

from ..errors import TransportError, first_line
from .base import PeerLostError, Transport, flush, lost
from .launch import Launch, MeetingPoint, meeting_point
from .row import Row
from .watch import Watch

START = timedelta(seconds=120)  # a rank that died before it came here must not hold the others for torch's 30 minutes
SILENCE = timedelta(minutes=30)  # a row may take this much longer for its round than the fastest one


class TorchTransport(Transport):
    """Collective: every rank of the launch builds one.

    backend: gloo sums in host memory; nccl on GPU number local_rank, one rank a GPU.
    TransportError if the ranks have not found each other within START.
    """

    _store: dist.Store | None

    def __init__(self, launch: Launch, backend: Literal["gloo", "nccl"] = "gloo") -> None:
        self.name = f"torch.distributed ({backend})"
        self.rank, self.row, self.rows = launch.rank, Row(launch.rank), launch.size
        self._device = torch.device("cuda", launch.local_rank) if backend == "nccl" else torch.device("cpu")
        point, self._store = meeting_point(launch), None
        try:
            self._store = _store(launch, point)
            channel = _fresh_part(self._store, launch)
            address = own_address(launch, point)
            self._group: Any = _nccl(channel, launch) if backend == "nccl" else _gloo(channel, launch, address)
            self._watch = Watch(channel, self.row.index, self.rows, address or point.host, START.total_seconds())
        except (RuntimeError, ValueError, OSError) as error:
            raise TransportError(_why_apart(error, point, launch, self._store is not None)) from None

    @contextmanager
    def _peers(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise PeerLostError(lost(gloo_says(error), self._watch.lost_row(), self.noun)) from None

    def name_ranks(self) -> None:
        super().name_ranks()
        self._watch.noun = self.noun

    def _tensor(self, vector: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(vector).to(self._device)

    @contextmanager
    def _overwritten(self, vector: np.ndarray) -> Iterator[torch.Tensor]:
        """The vector itself as a tensor, or its copy on the GPU, which comes back into it."""
        tensor = self._tensor(vector)
        with self._peers():
            yield tensor
        if tensor.device.type != "cpu":
            vector[:] = tensor.cpu().numpy()

    def _sum(self, vector: np.ndarray) -> None:
        with self._overwritten(vector) as tensor:
            self._group.allreduce(tensor, dist.ReduceOp.SUM, SILENCE).wait()

    def _gather(self, vector: np.ndarray) -> np.ndarray:
        out = self._tensor(np.empty((self.rows, len(vector)), vector.dtype))
        with self._peers():
            self._group.allgather(list(out), self._tensor(vector), SILENCE).wait()
        return out.cpu().numpy()

    def _to_root(self, vector: np.ndarray) -> np.ndarray | None:
        # gloo and NCCL both gather by one send a row to the root, not over a tree.
        root = self.row.index == 0
        out = self._tensor(np.empty((self.rows if root else 0, len(vector)), vector.dtype))
        with self._peers():
            self._group.gather([list(out)] if root else [], [self._tensor(vector)], _gather_options()).wait()
        return out.cpu().numpy() if root else None

    def _broadcast(self, vector: np.ndarray, root: int) -> None:
        with self._overwritten(vector) as tensor:
            self._group.broadcast(tensor, root, SILENCE).wait()

    def barrier(self) -> None:
        self._sum(np.zeros(1, np.int8))

    def abort(self, code: int) -> NoReturn:
        # No unwinding: the system closes the sockets at once, so the peers' next collective fails; a destructor of
        # torch's might first wait for those same peers.
        flush()
        os._exit(code)

    def close(self) -> None:
        if self._group is not None:
            self._watch.expect_end()
            self.barrier()
            self._watch.close()
            self._group.shutdown()
            self._group = self._store = None


def _gather_options() -> dist.GatherOptions:
    options = dist.GatherOptions()
    options.rootRank, options.timeout = 0, SILENCE
    return options


def _store(launch: Launch, point: MeetingPoint) -> dist.Store:
    serves = launch.rank == 0 and not point.by_agent
    return _in_time(
        lambda: dist.TCPStore(
            point.host, point.port, launch.size, serves, START, wait_for_workers=False, multi_tenant=serves
        )
    )


def _in_time(connect: Callable[[], dist.Store]) -> dist.Store:
    """connect(), or TimeoutError after START and a little: torch waits for ever for what a server is to answer."""
    done: queue.SimpleQueue[dist.Store | Exception] = queue.SimpleQueue()

    def work() -> None:
        try:
            done.put(connect())
        except Exception as error:
            done.put(error)

    threading.Thread(target=work, name="hpcfed store", daemon=True).start()
    try:
        store = done.get(timeout=START.total_seconds() + 1)
    except queue.Empty:
        atexit.register(_leave)
        raise TimeoutError from None
    if isinstance(store, Exception):
        raise store
    return store


def _leave() -> None:
    """End now: the thread that still waits would be torn down with the interpreter, which aborts the process."""
    flush()
    os._exit(1)


def _why_apart(error: BaseException, point: MeetingPoint, launch: Launch, connected: bool) -> str:
    """Why ranks do not find each other, in one line.  connected: to the store at the meeting point."""
    place, said = f"{point.host}:{point.port} (MASTER_ADDR:MASTER_PORT)", first_line(error)
    free = "set MASTER_PORT to a free port of that host, the same on every rank"
    if "EADDRINUSE" in said:
        return f"rank 0 cannot listen at {place}: another job or program listens there; {free}"
    waited = f"the {launch.size} ranks did not find each other at {place} within {START.total_seconds():.0f} s: "
    if connected:
        return f"{waited}{said}. Did every rank start, and does every host reach this one?"
    try:
        socket.create_connection((point.host, point.port), 3.0).close()
    except socket.gaierror:
        return (
            f"{waited}{point.host} has no address on {platform.node()}; set MASTER_ADDR to a name or an address of it"
        )
    except ConnectionRefusedError:
        return f"{waited}nobody listens there; did rank 0 start, and is it on that host?"
    except OSError as e:
        return f"{waited}{first_line(e)}; is there a firewall between {platform.node()} and that host?"
    return f"{waited}what listens there does not answer as rank 0 would, so it is another program; {free}"


def agent_store(launch: Launch) -> dist.Store | None:
    """The store that torchrun's agent serves and that outlives this attempt's ranks; None if there is none."""
    if launch.launcher != "torchrun":
        return None
    point = meeting_point(launch)
    return _store(launch, point) if point.by_agent else None


def _fresh_part(store: dist.Store, launch: Launch) -> dist.Store:
    """Collective: a part of the store that only the ranks of this attempt know, once all of them have come here.

    Not named by the restart count: each agent of several counts for itself, and one that joins the others' restart
    before it has seen its own worker fail does not count that. Rank 0 makes up the name instead, and tells it to every
    process that calls: each calls by a token of its own, so a caller of a dead attempt is answered in vain.
    """
    token, end = os.urandom(8).hex(), time.monotonic() + START.total_seconds()
    caller = f"hpcfed/{_job(launch)}/caller"
    store.set(f"{caller}/{launch.rank}", token)
    if launch.rank:
        store.wait([f"hpcfed/answer/{token}"], START)
        part = dist.PrefixStore(store.get(f"hpcfed/answer/{token}").decode(), store)
    else:
        part = dist.PrefixStore(f"hpcfed/{token}", store)
    part.set(f"here/{launch.rank}", "1")
    missing = set(range(launch.size)) if launch.rank == 0 else set()
    while missing and time.monotonic() < end:
        for rank in missing:
            if store.check([f"{caller}/{rank}"]):
                theirs = store.get(f"{caller}/{rank}").decode()
                store.set(f"hpcfed/answer/{theirs}", f"hpcfed/{token}")
        missing = {rank for rank in missing if not part.check([f"here/{rank}"])}
        time.sleep(0.01 if missing else 0.0)
    left = max(1.0, end - time.monotonic()) if launch.rank else 1.0
    part.wait([f"here/{rank}" for rank in range(launch.size)], timedelta(seconds=left))
    return part


def _job(launch: Launch) -> str:
    """What all ranks of a job know of it: those of another, sent to the same port, are not answered."""
    known = {"torchrun": ("TORCHELASTIC_RUN_ID",), "slurm": ("SLURM_JOB_ID", "SLURM_STEP_ID")}
    return "/".join([str(launch.size), *(os.environ.get(name, "") for name in known.get(launch.launcher, ()))])


def _gloo(store: dist.Store, launch: Launch, address: str) -> Any:
    if not address or os.environ.get("GLOO_SOCKET_IFNAME"):
        return dist.ProcessGroupGloo(store, launch.rank, launch.size, START)
    options = dist.ProcessGroupGloo._Options()  # type: ignore[attr-defined]
    options._timeout = START  # of connecting; collectives bring their own
    options._devices = [dist.ProcessGroupGloo.create_device(hostname=address)]
    return dist.ProcessGroupGloo(store, launch.rank, launch.size, options)


def _nccl(store: dist.Store, launch: Launch) -> Any:
    options = dist.ProcessGroupNCCL.Options()
    options._timeout = START
    return dist.ProcessGroupNCCL(store, launch.rank, launch.size, options)


def own_address(launch: Launch, point: MeetingPoint) -> str:
    """The address under which this rank's peers reach it; empty: gloo's own choice by host name."""
    if launch.one_host:
        return "127.0.0.1"  # works also where the host's name does not resolve
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((point.host, point.port))  # a datagram socket sends nothing here, it only picks the route
            own = str(probe.getsockname()[0])
        except OSError:
            return ""
    return "" if own.startswith("127.") else own


def gloo_says(error: BaseException) -> str:
    """Gloo's message without the line of its source in front, and without its guesses behind."""
    return re.sub(r"^\[\S+\] ", "", first_line(error)).partition(". This is typically")[0]


def gpu_for_each(launch: Launch) -> bool:
    """Whether this host has a GPU for every rank on it: NCCL refuses two ranks on one."""
    return torch.cuda.is_available() and launch.local_size <= torch.cuda.device_count() and dist.is_nccl_available()
