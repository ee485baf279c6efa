"""Batch scripts: those in slurm/ are what the command in them renders; impossible shapes; what bash thinks of them."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from hpcfed.cluster.script import array_ids, seconds
from hpcfed.errors import ConfigError
from tests.support.command import ok, refused
from tests.support.harness import ROOT

SCRIPTS = sorted((ROOT / "slurm").glob("*.sbatch"))
BASE = ["submit", "digits", "--nodes", "1", "--time", "10", "--dry-run"]


def test_there_are_scripts() -> None:
    assert {script.stem for script in SCRIPTS} == {
        "one-node", "many-nodes", "many-nodes-sharded", "seeds", "recipes", "requeue", "scaling",
    }  # fmt: skip


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_is_what_its_command_renders(script: Path) -> None:
    text = script.read_text()
    command = shlex.split(text.splitlines()[1].removeprefix("# "))
    assert command[:2] == ["hpcfed", "submit"]
    assert ok(*command[1:], "--dry-run").out == text
    subprocess.run(["bash", "-n", str(script)], check=True)


def directives(script: str) -> dict[str, str]:
    return dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", script, re.MULTILINE))


def test_resources_follow_from_the_shape() -> None:
    found = directives(ok(*BASE, "--gpus-per-node", "4", "--partition", "gpu", "--account", "x1").out)
    assert found == {
        "job-name": "digits", "nodes": "1", "ntasks": "4", "ntasks-per-node": "4", "cpus-per-task": "1",
        "gpus-per-node": "4", "time": "10", "partition": "gpu", "account": "x1", "output": "runs/digits/slurm-%j.log",
        "open-mode": "append", "requeue": "", "signal": "B:USR1@120",
    }  # fmt: skip
    found = directives(ok(*BASE, "--array", "0-3%2", "--after", "77", "--out", "a/b").out)
    assert found["array"] == "0-3%2" and found["output"] == "a/b/slurm-%A_%a.log"
    assert found["dependency"] == "afterok:77" and found["kill-on-invalid-dep"] == "yes"


def test_threads_are_those_of_the_recipe() -> None:
    script = ok(*BASE, "--set", "mesh.threads=6").out
    assert directives(script)["cpus-per-task"] == "6" and "export OMP_NUM_THREADS=6 " in script
    assert "--cpus-per-task=6 " in script  # on the srun line too: srun does not take it from the job


def test_settings_survive_the_shell() -> None:
    awkward = 'task.prompt=it\'s $HOME "{text}" `date`'
    script = ok(*BASE, "--set", awkward).out
    last = next(line for line in script.splitlines() if line.startswith("run "))
    said = subprocess.run(
        ["bash", "-c", f'run() {{ printf "%s\\n" "$@"; }}; {last}'], capture_output=True, text=True, check=True
    )
    assert said.stdout.splitlines() == ["runs/digits", "1", "digits", "--set", awkward]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--nodes", "8"], ["8 rows", "10 clients in groups of clients.group=2", "at most --nodes 5"]),
        (["--tasks-per-node", "6"], ["6 rows", "--nodes 1 --tasks-per-node 5"]),
        (["--gpus-per-node", "4", "--tasks-per-node", "2"], ["--gpus-per-node 2", "one GPU"]),
        (["--set", "mesh.shards=4", "--tasks-per-node", "3"], ["mesh.shards=4", "[1, 2, 4, 8, 16]"]),
        (["--set", "mesh.shards=4", "--tasks-per-node", "2"], ["takes 2 nodes of 2 ranks a row"]),
        (["--set", "mesh.transport=mpi"], ["--mpi pmix"]),
        (["--nodes", "0"], ["--nodes 0: must be at least 1"]),
        (["--time", "2"], ["--time 2 with --stop-before 120"]),
        (["--time", "soon"], ["--time 'soon'", "01:30:00"]),
        (["--array", "0-"], ["--array '0-'", "0-7%3"]),
        (["--array", "5-2"], ["5-2 has no task"]),
        (["--array", "0-2", "--set", "seed=3"], ["task ids are the seeds"]),
        (["--array", "0-2", "--scaling", "1"], ["--scaling", "leave --array out"]),
        (["--scaling", "1,2"], ["2 nodes of a job of --nodes 1"]),
        (["--scaling", "one"], ["--scaling 'one'", "1,2,4"]),
        (["--out", "runs/50%"], ["'runs/50%'", "Slurm's options"]),
        (["--set", "algorithm.mo=1"], ["did you mean algorithm.mu?"]),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(more: list[str], says: list[str]) -> None:
    message = refused(*BASE, *more)
    assert all(part in message for part in says), message


def test_recipes_that_would_share_a_folder() -> None:
    assert "two recipes are called digits" in refused("submit", "digits", *BASE[1:])
    assert "there is no recipe 2" in refused("submit", "sst2-opt-125m", *BASE[1:], "--array", "0-2")


def test_slurm_notation() -> None:
    assert [seconds(t) for t in ("10", "10:30", "1:00:00", "2-0", "1-02:03", "1-02:03:04")] == [
        600, 630, 3600, 172800, 93780, 93784,
    ]  # fmt: skip
    assert array_ids("0-2,7,10-20:5%3") == [0, 1, 2, 7, 10, 15, 20]
    with pytest.raises(ConfigError):
        array_ids("0-4:0")
