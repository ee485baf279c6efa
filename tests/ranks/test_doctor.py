"""hpcfed doctor under real launchers: a launch that is well, ranks that differ, and launches that fell apart."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hpcfed.cluster.doctor import check_launch, explain
from hpcfed.errors import ConfigError, TransportError
from hpcfed.transport.launch import Launch
from tests.support.command import ok, refused
from tests.support.doctor_checks import differ
from tests.support.harness import ROOT, Launcher, environment, launch, mpirun, run_ranks


@pytest.mark.parametrize("launcher", ["torchrun", "mpirun"])
def test_two_ranks_that_are_well(launcher: Launcher, tmp_path: Path) -> None:
    if launcher == "mpirun":
        mpirun()
    argv = ["-m", "hpcfed", "doctor", "digits", "--out", str(tmp_path / "run")]
    finished = launch(launcher, 2, argv)
    assert finished.code == 0, finished.output
    assert "nothing is wrong" in finished.output and "ring of 2: passed" in finished.output
    assert "127 votes for: counted 127" in finished.output and "128 votes for: counted 128" in finished.output
    votes = "MPI (Open MPI" if launcher == "mpirun" else "torch.distributed (gloo)"
    assert f"votes by {votes}" in finished.output
    assert not list(tmp_path.iterdir())


def test_ranks_that_differ(tmp_path: Path) -> None:
    results = run_ranks(3, differ, str(tmp_path))
    found = results[0]
    assert all(found[key] == results[2][key] for key in ("versions", "clocks", "well"))  # all ranks know the same
    assert found["well"] == [] and found["left"] == []
    assert found["versions"][0].startswith("the software differs: ranks 0, 1: torch 2.")
    assert found["versions"][0].endswith("; rank 2: torch 1.0")
    assert found["recipe"][0].startswith("the recipe differs: ranks 0, 1: ") and "rank 2: another" in found["recipe"][0]
    assert found["threads"] == [
        "the number of threads (OMP_NUM_THREADS, mesh.threads) differs: ranks 0, 1: 1; rank 2: 2"
    ]
    assert "ranks 0, 1: 3; rank 2: 4" in found["size"][0]
    assert found["backend"][0].startswith("what carries the votes differs: ranks 0, 1: ")
    assert found["clocks"][0].startswith("clocks: rank 2 on ") and " s ahead of rank " in found["clocks"][0]
    assert "ranks 1, 2 on " in found["unseen"][0] and "what rank 0 writes there is not seen" in found["unseen"][0]
    assert [line.split()[0] for line in found["report"][:4]] == ["rank", "0", "1", "2"]


def test_alone() -> None:
    assert "1 ranks by alone" in ok("doctor", "digits").out
    assert "did you mean" in refused("doctor", "digit")


def test_the_library_of_another_mpi_is_named() -> None:
    said = {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"}
    mpirun()
    done = subprocess.run(
        [sys.executable, "-m", "hpcfed", "doctor"],
        env=environment(said), cwd=ROOT, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode != 0 and "2 ranks by openmpi cannot talk" in done.stderr
    assert "sees rank 0 of 1" in done.stderr and "belongs to another MPI" in done.stderr


def test_causes_are_named() -> None:
    here = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    assert check_launch(Launch(), "auto", {}) == ""
    slurm = Launch("slurm", 1, 4)
    assert check_launch(slurm, "auto", here) == "" and check_launch(slurm, "mpi", {}) == ""
    assert "finds no MPI library here" in check_launch(slurm, "auto", here | {"PMIX_RANK": "1"})
    with pytest.raises(ConfigError, match="PALS_RANKID=3 is set"):
        check_launch(Launch(), "auto", {"PALS_RANKID": "3"})
    with pytest.raises(ConfigError, match=r"no-such-host\.invalid has no address on .* set MASTER_ADDR"):
        check_launch(Launch("torchrun", 1, 2), "auto", here | {"MASTER_ADDR": "no-such-host.invalid"})
    error = TransportError("no")
    assert "srun --mpi=pmix" in explain(slurm, error, "mpi", {})
    assert "PMI" not in explain(slurm, error, "mpi", {"PMIX_RANK": "1"})
