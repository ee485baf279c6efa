"""Jobs on a real cluster of four nodes: what hpcfed submit renders under sbatch, srun, requeue, scancel, kill -9."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hpcfed.runs.read import read_metrics
from tests.support.command import ok, settings
from tests.support.slurm_cluster import Cluster, skip
from tests.support.small import save_tiny_folder, tiny_sst2

# Large enough a number of rounds to be caught in the middle, small enough to be quick.
SMALL = settings(clients__count=4, clients__batch=16, clients__group=1, clients__partition="iid", eval_every=0)
RECIPE = [*SMALL, *settings(rounds=40)]
LONG = [*SMALL, *settings(rounds=100_000)]


def result(run: Path) -> tuple[str, int, str, bytes]:
    """How a run ended: status, rounds, fingerprint, and the decisions of all rounds."""
    summary = json.loads((run / "summary.json").read_text())
    sealed = run / "orbit.safetensors"
    orbit = sealed.read_bytes() if sealed.exists() else b""
    return summary["status"], summary["rounds"], summary["fingerprint"], orbit


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, int, str, bytes]:
    """The recipe in one process: what every job must find."""
    out = tmp_path_factory.mktemp("alone") / "run"
    ok("train", "digits", *RECIPE, "--out", out, "--quiet")
    return result(out)


def submit(
    cluster: Cluster, out: Path, *more: str, name: str = "digits", recipe: list[str] = RECIPE, code: int = 0
) -> str:
    """hpcfed submit NAME; its standard output and error."""
    argv = ["submit", name, "--time", "20", *recipe, "--out", str(out), *more]
    done = subprocess.run(
        [sys.executable, "-m", "hpcfed", *argv],
        env=cluster.environment(),
        cwd=out.parent,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == code, f"{done.stdout}{done.stderr}{logs(out)}"
    return done.stdout + done.stderr


def logs(out: Path) -> str:
    """What all jobs of a run folder wrote."""
    return "\n".join(log.read_text(errors="replace") for log in sorted(out.glob("slurm-*.log")))


def job_of(said: str) -> str:
    return said.split()[0]


def rounds_of(out: Path) -> int:
    """Rounds that the run has logged."""
    return max((record["t"] for record in read_metrics(out)), default=0)


def starts(out: Path) -> list[dict]:
    """The starts before the present one."""
    return json.loads((out / "env.json").read_text())["earlier"]


def under_way(cluster: Cluster, out: Path, beyond: int = 0) -> None:
    """Wait until the run is some rounds beyond."""
    cluster.wait_for(f"{out}: rounds under way\n{logs(out)}", lambda: rounds_of(out) > beyond + 2)


def test_four_nodes_find_what_one_process_finds(cluster, alone, tmp_path) -> None:
    said = submit(cluster, tmp_path / "run", "--nodes", "4", "--wait")
    job = job_of(said)
    assert f"job {job}: RUNNING on n[1-4]" in said and f"job {job}: COMPLETED" in said
    assert result(tmp_path / "run") == alone
    env = json.loads((tmp_path / "run" / "env.json").read_text())
    assert (env["launcher"], env["ranks"], env["slurm_job"]) == ("slurm", 4, job)
    large = submit(cluster, tmp_path / "large", "--nodes", "5", "--set", "clients.count=5", code=1)
    assert "--nodes 5: partition debug has 4" in large and not (tmp_path / "large").exists()
    again = submit(cluster, tmp_path / "run", "--nodes", "4", code=1)
    assert "holds a run that is finished; choose another --out" in again


def test_two_nodes_of_two_ranks_a_row_find_what_one_process_finds(cluster, tmp_path) -> None:
    """DeepSpeed spreads the model over a node's ranks; votes go over MPI."""
    if importlib.util.find_spec("deepspeed") is None:
        skip("deepspeed is not installed; pip install deepspeed")
    cluster.need("pmix")
    recipe = settings(
        model__name=save_tiny_folder(tmp_path, "opt"), model__dtype="float32", task__data=tiny_sst2(tmp_path),
        rounds=12, eval_every=0, clients__count=8, clients__batch=4, clients__group=2, clients__max_batch_tokens=0,
        algorithm__lr=1e-3, mesh__threads=1,
    )  # fmt: skip
    shape = ("--nodes", "2", "--tasks-per-node", "2", "--mpi", "pmix", "--set", "mesh.shards=2")
    submit(cluster, tmp_path / "run", *shape, "--wait", name="sst2-opt-125m", recipe=recipe)
    ok("train", "sst2-opt-125m", *recipe, "--out", tmp_path / "alone", "--quiet")
    # In fp32 no slope of these rounds is so close to 0 that the other order of sums would turn it.
    assert result(tmp_path / "run") == result(tmp_path / "alone")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["rows"], summary["shards"]) == (2, 2) and "MPI (Open MPI" in summary["transport"]


def test_an_array_is_one_run_a_seed(cluster, alone, tmp_path) -> None:
    out = tmp_path / "seeds"
    job = job_of(submit(cluster, out, "--nodes", "1", "--array", "0-1"))
    # Submitted again, it leaves finished runs alone.
    said = submit(cluster, out, "--nodes", "1", "--array", "0", "--after", job, "--wait")
    assert f"job {job_of(said)}_0: COMPLETED" in said and "seed-0: is finished" in logs(out)
    assert [cluster.field(f"{job}_{seed}", "JobState") for seed in range(2)] == ["COMPLETED"] * 2
    runs = [result(out / f"seed-{seed}") for seed in range(2)]
    assert runs[0] == alone and runs[1][2] != alone[2]


def test_stopped_before_its_time_is_up_and_queued_again_twice(cluster, tmp_path) -> None:
    cluster.need("pmix")
    recipe = [*SMALL, *settings(rounds=200)]  # enough to be caught in the middle
    ok("train", "digits", *recipe, "--out", tmp_path / "alone", "--quiet")
    out, done = tmp_path / "run", 0
    job = job_of(submit(cluster, out, "--nodes", "2", "--mpi", "pmix", recipe=recipe))
    for restarts in ("1", "2"):
        if restarts == "1":
            under_way(cluster, out)
            done = rounds_of(out)
        else:  # while the ranks are still loading: the signal waits for the first round, it does not kill them
            cluster.wait_for("the second start", lambda: len(starts(out)) == 1)
        cluster.run("scancel", "--batch", "--signal=USR1", job)  # as Slurm itself does before the time is up
        cluster.wait_for("queued again", lambda n=restarts: cluster.field(job, "Restarts") == n)
        cluster.wait_for("pending", lambda: cluster.field(job, "JobState") == "PENDING")
        assert result(out)[0] == "interrupted"
        # Not after Slurm's usual two minutes; within the same second slurmd would take the start for the killed one.
        cluster.run("scontrol", "update", f"jobid={job}", "StartTime=now+2")
    cluster.wait_for(f"the end of {job}", lambda: cluster.ended(job))
    assert cluster.field(job, "JobState") == "COMPLETED", logs(out) + cluster.story(job)
    assert result(out) == result(tmp_path / "alone")
    assert logs(out).count("time is up, the job is queued again") == 2
    assert len(starts(out)) == 2 and rounds_of(out) > done
    summary = json.loads((out / "summary.json").read_text())
    assert summary["rows"] == 2 and "MPI (Open MPI" in summary["transport"]


def test_a_scaling_study_runs_on_part_of_its_job(cluster, tmp_path) -> None:
    out = tmp_path / "study"
    recipe = [*SMALL, *settings(rounds=4)]
    job = job_of(submit(cluster, out, "--nodes", "2", "--scaling", "1,2", recipe=recipe))
    cluster.wait_for(f"the end of {job}", lambda: cluster.ended(job))
    assert cluster.field(job, "JobState") == "COMPLETED", logs(out) + cluster.story(job)
    for kind, nodes in ((kind, nodes) for kind in ("strong", "weak") for nodes in (1, 2)):
        summary = json.loads((out / f"{kind}-{nodes}" / "summary.json").read_text())
        assert summary["status"] == "finished" and summary["rows"] == nodes
    assert (out / "scaling.png").stat().st_size > 10_000


def test_cancelled_or_killed_and_submitted_again_it_goes_on(cluster, tmp_path) -> None:
    out = tmp_path / "run"
    job = job_of(submit(cluster, out, "--nodes", "2", recipe=LONG))
    under_way(cluster, out)
    cluster.run("scancel", job)
    cluster.wait_for("the cancelled job's end", lambda: cluster.ended(job))
    assert cluster.field(job, "JobState") == "CANCELLED" and cluster.field(job, "Restarts") == "0"
    assert "holds an unfinished run with other settings (rounds: 100000 -> 40)" in submit(
        cluster, out, "--nodes", "2", code=1
    )
    # By gloo the other rank says whom it misses; by MPI, which ends it at once, srun does.
    for mpi, says in (("none", r"rank 0 .*lost row 1"), ("pmix", r"task 1: Killed")):
        cluster.need(mpi)
        before = rounds_of(out)
        job = job_of(submit(cluster, out, "--nodes", "2", "--mpi", mpi, recipe=LONG))
        under_way(cluster, out, before)
        os.kill(rank_of(cluster, job, 1), signal.SIGKILL)
        cluster.wait_for("the job's end", lambda ended=job: cluster.ended(ended))
        log = (out / f"slurm-{job}.log").read_text()
        assert cluster.field(job, "JobState") == "FAILED", log
        assert re.search(says, log) and "ended with code" in log and "resumed after round" in log, log


def rank_of(cluster: Cluster, job: str, rank: int) -> int:
    """The process of one rank of a job."""
    wanted = {f"SLURM_JOB_ID={job}", f"SLURM_PROCID={rank}", "SLURM_STEP_ID=0"}
    for pid in cluster.processes():
        try:
            said = Path(f"/proc/{pid}/environ").read_text(errors="replace").split("\0")
            command = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        except OSError:
            continue
        if wanted <= set(said) and "train" in command:
            return pid
    raise AssertionError(f"no rank {rank} of job {job}")


def test_a_job_that_cannot_start_says_so_to_who_waits(cluster, tmp_path) -> None:
    said = submit(cluster, tmp_path / "run", "--nodes", "1", "--wait", "--set", "task.data=nowhere", code=1)
    assert re.search(r"job \d+: FAILED", said) and "nowhere" in said
