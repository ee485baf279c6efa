"""Notice a dead row while this one computes: a TCP connection from every row to row 0 that carries nothing else.

A collective fails at once when a peer is gone, but a row that is in the middle of a long forward pass, or of loading
its model, is in no collective, and NCCL's kernels wait for dead peers for ever. A process that dies in whatever way
closes its connections. Row 0 sees that and tells the others which row it was; if row 0 dies, all see it.
MPI needs none of this: its launcher ends the ranks.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import sys
import threading
import time

import torch.distributed as dist

from .base import flush, lost

GRACE = 2.0  # seconds in which the main thread, if it is in a collective, can say the same and leave by its own way
# A host that loses its power closes nothing: ask after 4 idle seconds, three times, every 2 seconds.
KEEPALIVE = {"TCP_KEEPIDLE": 4, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 3}


class Watch:
    """Collective: every row builds one, and calls `expect_end` before the barrier that ends the run.

    store: where row 0 leaves its address.  address: of this host, as its peers reach it.  timeout: seconds.
    """

    def __init__(self, store: dist.Store, row: int, rows: int, address: str, timeout: float) -> None:
        self._row = row
        self.noun = "row"  # "rank" where several ranks make a row
        self._ending = False
        self._noticed = threading.Event()
        self._lost = -1
        self._peers = _accept(store, rows, address, timeout) if row == 0 else _connect(store, row, timeout)
        threading.Thread(target=self._run, name="hpcfed watch", daemon=True).start()

    def lost_row(self) -> int | None:
        """Which row is gone, for the message of a collective that has just failed; None if no connection broke."""
        return self._lost if self._noticed.wait(1.0) else None

    def expect_end(self) -> None:
        """From now on a connection that closes is no loss."""
        self._ending = True

    def close(self) -> None:
        for peer in self._peers:
            peer.close()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            for peer in self._peers:
                selector.register(peer, selectors.EVENT_READ)
            ready = selector.select()[0][0].fileobj
            assert isinstance(ready, socket.socket)
            said = _receive(ready)
        if self._ending:
            return
        self._lost = int.from_bytes(said, "little") if len(said) == 4 else self._peers[ready]
        self._noticed.set()
        if self._row == 0:
            for peer in self._peers:
                _send(peer, self._lost)
        threading.Event().wait(GRACE)
        with contextlib.suppress(OSError, ValueError):
            me = f"rank {self._row}" + (f" (row {self._row})" if self.noun == "row" else "")
            sys.stderr.write(f"hpcfed: {me}: {lost('its connection closed', self._lost, self.noun)}\n")
        flush()
        os._exit(1)


def _accept(store: dist.Store, rows: int, address: str, timeout: float) -> dict[socket.socket, int]:
    peers: dict[socket.socket, int] = {}
    end = time.monotonic() + timeout
    with _server(address) as server, selectors.DefaultSelector() as callers:
        callers.register(server, selectors.EVENT_READ)
        store.set("watch", f"{address} {server.getsockname()[1]}")
        while len(peers) < rows - 1:
            ready = callers.select(max(0.0, end - time.monotonic()))
            if not ready:
                missing = sorted(set(range(1, rows)) - set(peers.values()))
                raise TimeoutError(f"no call from {', '.join(map(str, missing[:8]))} at {address}")
            for key, _ in ready:
                if key.fileobj is server:  # a stranger that says nothing must not keep the others waiting
                    callers.register(server.accept()[0], selectors.EVENT_READ)
                    continue
                assert isinstance(key.fileobj, socket.socket)
                peer = key.fileobj
                callers.unregister(peer)
                peer.settimeout(GRACE)
                said = _receive(peer)
                row = int.from_bytes(said, "little") if len(said) == 4 else 0
                if 0 < row < rows and row not in peers.values():
                    peers[_kept_alive(peer)] = row
                else:
                    peer.close()  # some stranger
        for key in list(callers.get_map().values()):
            if isinstance(key.fileobj, socket.socket) and key.fileobj is not server:
                key.fileobj.close()
    return peers


def _server(address: str) -> socket.socket:
    """Listening on the loopback interface if that is where the peers come from, else on all: they may use any name."""
    if address.startswith("127."):
        return socket.create_server((address, 0))
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", 0))


def _connect(store: dist.Store, row: int, timeout: float) -> dict[socket.socket, int]:
    address, port = store.get("watch").decode().split()
    peer = socket.create_connection((address, int(port)), timeout)
    _send(peer, row)
    return {_kept_alive(peer): 0}


def _kept_alive(peer: socket.socket) -> socket.socket:
    peer.settimeout(None)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        if hasattr(socket, name):
            peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return peer


def _send(peer: socket.socket, row: int) -> None:
    with contextlib.suppress(OSError):  # that one is gone as well
        peer.sendall(row.to_bytes(4, "little"))


def _receive(peer: socket.socket) -> bytes:
    """A row number in 4 bytes, or nothing if the other end is gone."""
    try:
        return peer.recv(4, socket.MSG_WAITALL)
    except OSError:
        return b""
