"""All ranks end, and the reason is said once, when one of them cannot go on."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from ..errors import HpcfedError, TransportError, first_line
from .base import PeerLostError, Transport, flush
from .choose import speaks_mpi
from .launch import Launch


def fail(where: Transport | Launch, error: BaseException) -> NoReturn:
    """Say why, once, and end all ranks: what every command does with an exception that nobody caught.

    where: the transport, or the launch while there is none yet.  An error of hpcfed's own is one sentence, another one
    brings its traceback; an error that all rows raise alike is said by row 0 only.
    """
    if type(error).__name__ == "OutOfMemoryError":  # torch's, of a GPU; torch is not loaded for its name
        cure = "lower clients.max_batch_tokens or clients.batch, raise mesh.shards, or take mesh.device=cpu"
        error = HpcfedError(f"{first_line(error)}; {cure}")
    code = error.code if isinstance(error, SystemExit) else 130 if isinstance(error, KeyboardInterrupt) else 1
    shared = isinstance(where, Transport) and where.is_everywhere(error)
    message = _message(where, error)
    if not shared or where.rank == 0:
        flush()
        with suppress(OSError, ValueError):
            sys.stderr.write(message)  # one write: other ranks speak at the same time
        flush()
    if code != 0:
        _tell_agent(message, error)
    if isinstance(where, Transport):
        if not shared:
            where.abort(code if isinstance(code, int) else 1)
        _leave_together(where)
    elif where.size > 1 and speaks_mpi(where):
        _abort_early()
    raise SystemExit(code)


def _tell_agent(message: str, error: BaseException) -> None:
    """Leave the reason where torchrun's agent looks for it: the agent's report, its last words, then ends with it.

    Without a traceback, which the rank itself prints.
    """
    if message and (file := os.environ.get("TORCHELASTIC_ERROR_FILE")):
        reason = message.strip() if isinstance(error, HpcfedError) else first_line(HpcfedError(message))
        # Of reasons in the same second the agent names that of the least rank, which may have lost another only.
        when = int(time.time()) + isinstance(error, PeerLostError)
        with suppress(OSError):
            Path(file).write_text(json.dumps({"message": reason, "timestamp": when}))


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
    several = where.rows > 1 or where.row.shards > 1 if isinstance(where, Transport) else where.size > 1
    shared = isinstance(where, Transport) and where.is_everywhere(error)
    row = f" (row {where.row.index})" if isinstance(where, Transport) else ""
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
        fail(where, error)
