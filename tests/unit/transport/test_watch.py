"""Who is let onto the line on which rows notice one another's end; tests/ranks/test_transport.py kills some."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch.distributed as dist

from hpcfed.transport.watch import _accept, _connect, _receive, _send

HOST = "127.0.0.1"


def test_every_row_is_known_once_and_strangers_are_hung_up_on() -> None:
    store = dist.HashStore()
    with ThreadPoolExecutor(1) as pool:
        accepted = pool.submit(_accept, store, 3, HOST, 30.0)
        port = int(store.get("watch").decode().split()[1])
        lines = [*_connect(store, 1, 30.0)]
        # Nothing, another protocol, row 0 itself, a row beyond the last, and row 1 once more.
        for said in (b"", b"GET ", *(row.to_bytes(4, "little") for row in (0, 3, 1))):
            with socket.create_connection((HOST, port), 30.0) as stranger:
                stranger.sendall(said)
                stranger.shutdown(socket.SHUT_WR)
                assert stranger.recv(1) == b""
        lines += _connect(store, 2, 30.0)
        peers = accepted.result(30.0)
    assert sorted(peers.values()) == [1, 2]
    for peer, row in peers.items():  # row 0 says which row is lost to each of the others
        _send(peer, 2)
        assert _receive(lines[row - 1]) == b"\2\0\0\0"
        peer.close()
        assert _receive(lines[row - 1]) == b""  # and if it dies itself, they see that
        lines[row - 1].close()
        _send(lines[row - 1], 1)  # no error: that one is gone as well
        assert _receive(lines[row - 1]) == b""


def test_a_stranger_that_says_nothing_keeps_nobody_waiting() -> None:
    store = dist.HashStore()
    with ThreadPoolExecutor(1) as pool:
        accepted = pool.submit(_accept, store, 2, HOST, 30.0)
        port = int(store.get("watch").decode().split()[1])
        with (
            socket.create_connection((HOST, port), 30.0) as silent,
            socket.create_connection((HOST, port), 30.0) as slow,
        ):
            slow.sendall(b"\1")
            (line,) = _connect(store, 1, 30.0)
            peers = accepted.result(10.0)
            assert list(peers.values()) == [1] and silent.recv(1) == b""  # hung up on in the end
    for peer in (*peers, line):
        peer.close()


def test_a_row_that_never_calls_is_named() -> None:
    with pytest.raises(TimeoutError, match=f"no call from 1, 2 at {HOST}"):
        _accept(dist.HashStore(), 3, HOST, 0.1)
