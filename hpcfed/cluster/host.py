"""What of this host would trouble a run, though ranks can talk: folders, names, the output's encoding.

Every function gives a line for the user, with the cure, or "".
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from ..places import kernel_folders, temporary, trouble
from ..transport.launch import resolves

ROOM = 64 * 2**20  # bytes that a temporary folder should have
SHARED = Path("/dev/shm")


def look_around() -> list[str]:
    """All that is worth knowing of this host."""
    return [line for line in (kernels(), tmpdir(), shared_memory(), letters(), *outputs()) if line]


def kernels() -> str:
    """Where compiled kernels are kept, if not for good or not where the user says."""
    failed = list[str]()
    for folder, why in kernel_folders():
        if not why and (not failed or not (below_tmp(folder) or "NUMBA_CACHE_DIR" in os.environ)):
            return ""
        if not why:
            where = f"kept in {folder}" + ", perhaps not for long" * below_tmp(folder)
            break
        failed.append(f"{folder}: {why}")
    else:
        where = "compiled anew at every start, which takes half a minute"
    return f"compiled kernels are {where} ({'; '.join(failed)}); set NUMBA_CACHE_DIR to a folder of your own"


def below_tmp(folder: Path) -> bool:
    """Whether a folder may be cleared at any time."""
    try:
        return folder.is_relative_to(tempfile.gettempdir())
    except OSError:
        return False


def tmpdir() -> str:
    """Whether temporary files have a place."""
    cure = "set TMPDIR to a folder with room"
    try:
        folder = tempfile.gettempdir()
    except OSError:
        return f"{temporary()}; {cure}"
    asked = os.environ.get("TMPDIR")
    if asked and Path(asked).absolute() != Path(folder):
        return f"TMPDIR={asked} cannot be used ({trouble(asked)}), {folder} is; {cure}"
    if why := trouble(folder):
        return f"{temporary()}: {why}; {cure}"
    return _small(folder, temporary(), cure)


def shared_memory() -> str:
    """Whether MPI and NCCL can share memory between the ranks of this host."""
    if not SHARED.is_dir():
        return ""
    cure = "MPI and NCCL need room there (docker run --shm-size=1g)"
    if why := trouble(SHARED):
        return f"{SHARED}: {why}; {cure}"
    return _small(str(SHARED), str(SHARED), cure)


def _small(folder: str, what: str, cure: str) -> str:
    free = shutil.disk_usage(folder).free
    return f"{what} has {free / 1e6:.3g} MB free; {cure}" if free < ROOM else ""


def own_name(node: str) -> str:
    """Whether the host, which calls itself `node`, is found by that name."""
    if resolves(node):
        return ""
    return (
        "its own host name has no address, so torchrun --standalone waits for minutes; give it --local-addr 127.0.0.1 "
        "(launch/torchrun.sh does) or set PET_LOCAL_ADDR=127.0.0.1"
    )


def letters() -> str:
    """Whether file names with any letter can be opened."""
    encoding = sys.getfilesystemencoding()
    if encoding.lower().replace("-", "") == "utf8":
        return ""
    return f"file names are taken to be {encoding}; set LC_ALL=C.UTF-8, or PYTHONUTF8=1"


def outputs() -> list[str]:
    """Whether what is printed arrives."""
    wrong = []
    for stream, title in ((sys.stdout, "stdout"), (sys.stderr, "stderr")):
        encoding = (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "")
        if encoding != "utf8":
            wrong.append(
                f"{title} is {encoding}: other letters are printed as escapes; unset PYTHONIOENCODING and LC_ALL"
            )
    return wrong
