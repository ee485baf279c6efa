"""What goes wrong under srun and must be named: ranks of different worlds, different nodes, a rank that raises."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.support import transport_checks
from tests.support.harness import ROOT
from tests.support.slurm_cluster import Cluster

PRIVATE = "pmix"  # {lab}/pmix is another folder on every node


def test_doctor_says_where_every_rank_is(cluster: Cluster, tmp_path: Path) -> None:
    argv = ("hpcfed", "doctor", "digits", "--set", "mesh.shards=2", "--out", str(tmp_path / "run"))
    said = cluster.srun(2, 2, *argv, mpi="pmix")
    assert said.code == 0 and "nothing is wrong" in said.output, said.output
    table = [line.split() for line in said.output.splitlines()]
    for rank, node in enumerate(("n1", "n1", "n2", "n2")):
        assert [str(rank), node, str(rank // 2), str(rank % 2), "cpu", "1"] in table, said.output
    assert "4 ranks by slurm, votes by MPI (Open MPI" in said.output
    assert "ring of 4: passed" in said.output and "2 rows of 2 shards: passed" in said.output
    assert "127 votes for: counted 127" in said.output and "128 votes for: counted 128" in said.output
    assert not (tmp_path / "run").exists()


def test_doctor_names_what_differs_between_nodes(cluster: Cluster) -> None:
    recipe, here = (ROOT / "hpcfed" / "recipes" / "digits.toml").read_text(), cluster.lab / PRIVATE
    for node, seed in (("n1", "7"), ("n2", "8")):
        (cluster.own(node) / "my.toml").write_text(recipe.replace("seed = 0", f"seed = {seed}"))
    other = cluster.own("n2") / "mpi4py-9.9.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: mpi4py\nVersion: 9.9\n")
    path = f"{here}{os.pathsep}{cluster.environment()['PYTHONPATH']}"
    argv = ("hpcfed", "doctor", str(here / "my.toml"), "--out", str(here / "run"))
    said = cluster.srun(2, 1, "--nodelist=n1,n2", *argv, extra={"PYTHONPATH": path})
    assert said.code != 0 and "nothing is wrong" not in said.output, said.output
    assert "wrong: the software differs: rank 0: mpi4py " in said.output and "rank 1: mpi4py 9.9" in said.output
    assert "wrong: the recipe differs: rank 0: " in said.output
    assert "2 ranks by slurm, votes by torch.distributed (gloo)" in said.output
    assert f"--out {here / 'run'}: rank 1 on n2: what rank 0 writes there is not seen" in said.output


def test_a_meeting_place_without_an_address_is_named_at_once(cluster: Cluster) -> None:
    said = cluster.srun(2, 1, "hpcfed", "doctor", extra={"MASTER_ADDR": "no-such-host.invalid"})
    assert said.code != 0 and "no-such-host.invalid has no address on n" in said.output, said.output


@pytest.mark.parametrize(
    ("mpi", "command", "says"),
    [
        # Open MPI does not speak PMI-2: without a word every rank would be a world of its own.
        ("pmi2", "train", r"calls this one rank \d, but the MPI library of mpi4py \(Open MPI .* sees rank 0 of 1"),
        ("none", "doctor", r"srun gave the ranks no PMI, so that every one is an MPI world of its own"),
    ],
)
def test_worlds_of_one_rank_are_an_error(cluster: Cluster, tmp_path: Path, mpi: str, command: str, says: str) -> None:
    argv = ("hpcfed", command, "digits", "--set", "mesh.transport=mpi", "--out", str(tmp_path / "run"))
    said = cluster.srun(2, 1, *argv, mpi=mpi)
    assert said.code != 0 and re.search(says, said.output), said.output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("mpi", ["none", "pmix"])
def test_a_rank_that_raises_ends_the_job_and_has_said_why(cluster: Cluster, tmp_path: Path, mpi: str) -> None:
    harness, body = str(ROOT / "tests" / "support" / "harness.py"), transport_checks.__file__
    said = cluster.srun(3, 1, sys.executable, harness, body, "die", str(tmp_path), '["raise", 1]', mpi=mpi)
    assert said.code != 0 and "rank 1 (row 1): ValueError: boom in row 1" in said.output, said.output
    cluster.wait_for("free nodes", lambda: not cluster.run("squeue", "-h"))


def test_what_one_node_lacks_ends_all_and_names_the_row(cluster: Cluster, tmp_path: Path) -> None:
    recipe = cluster.lab / PRIVATE / "digits.toml"
    shutil.copy(ROOT / "hpcfed" / "recipes" / "digits.toml", cluster.own("n1"))
    said = cluster.srun(2, 1, "--nodelist=n1,n2", "hpcfed", "train", str(recipe), "--out", str(tmp_path / "run"))
    assert said.code != 0 and f"row 1: recipe '{recipe}' is neither a file" in said.output, said.output
    assert not (tmp_path / "run").exists()


def test_nothing_is_left_of_a_cluster_whose_test_fails(cluster: Cluster) -> None:
    with pytest.raises(ZeroDivisionError), Cluster() as second:
        assert second.processes()
        second.run("sbatch", "--output=/dev/null", "--wrap", "sleep 600")
        second.wait_for("a job", lambda: "R" in second.run("squeue", "-h", "-o", "%t"))
        raise ZeroDivisionError
    assert not second.left()
