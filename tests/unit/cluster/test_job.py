"""Following a job: what a scheduler says, look after look, played by a script; tests/slurm has the real one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hpcfed.cluster import JobSpec
from hpcfed.cluster.job import check_limits, follow, queue
from hpcfed.errors import ConfigError, HpcfedError

Play = Callable[..., None]
SCONTROL = """#!/bin/sh
n=$(($(cat {folder}/n) + 1)); echo $n > {folder}/n
[ -f {folder}/$n ] || n=last
cat {folder}/$n
if grep -q error {folder}/$n; then cat {folder}/$n >&2; exit 1; fi
"""


def line(state: str, job: str = "7", task: str = "", **fields: object) -> str:
    """One line of scontrol show job -o."""
    array = f"ArrayJobId=7 ArrayTaskId={task} " if task else ""
    more = {"Restarts": 0, "Reason": "None", "ExitCode": "0:0", "NodeList": "n1", "StdOut": "/nowhere/log"} | fields
    return f"JobId={job} {array}JobState={state} " + " ".join(f"{key}={value}" for key, value in more.items())


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    """play(look, look, ...): what scontrol says at every look, the last one for ever."""

    def play(*looks: str) -> None:
        for n, look in enumerate(looks, start=1):
            (tmp_path / str(n)).write_text(look + "\n")
        (tmp_path / "last").write_text(looks[-1] + "\n")
        (tmp_path / "n").write_text("0")
        (tmp_path / "scontrol").write_text(SCONTROL.format(folder=tmp_path))
        (tmp_path / "scontrol").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    return play


def watch(folder: Path, rounds: int = 10) -> int:
    """follow(); the run does three rounds between two looks."""

    def sleep(_: float) -> None:
        metrics = folder / "metrics.jsonl"
        done = json.loads(metrics.read_text())["t"] if metrics.exists() else 0
        metrics.write_text(json.dumps({"t": min(done + 3, rounds)}) + "\n")

    return follow("7", [folder], rounds, sleep=sleep)


def test_a_job_that_is_queued_again_is_followed_on(play: Play, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pending = line("PENDING", Restarts=1, Reason="BeginTime", NodeList="")
    play(line("RUNNING"), line("PREEMPTED"), pending, line("RUNNING", Restarts=1), line("COMPLETED", Restarts=1))
    assert watch(tmp_path) == 0
    said = capsys.readouterr().err
    assert "job 7: RUNNING on n1" in said and "job 7: PENDING, start 2 (BeginTime)" in said
    assert "job 7: COMPLETED, start 2" in said and "round 10/10" in said


def test_the_last_round_is_told_once(
    play: Play, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job still evaluates after it; then it is looked at twice more."""
    monkeypatch.setattr("hpcfed.runs.progress.LINE_SECONDS", 0.0)
    play(*[line("RUNNING")] * 6, line("COMPLETED"))
    assert watch(tmp_path) == 0
    told = [text.split()[1] for text in capsys.readouterr().err.splitlines() if text.startswith("round ")]
    assert told == ["6/10", "9/10", "10/10"]


def test_a_scheduler_that_is_away_does_not_end_the_job(
    play: Play, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    away = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"
    play(line("RUNNING"), away, away, line("COMPLETED"))
    assert watch(tmp_path) == 0
    assert capsys.readouterr().err.count("trying again") == 1
    play(line("RUNNING"), "slurm_load_jobs error: Invalid job id specified")
    with pytest.raises(HpcfedError, match="job 7: Slurm does not know it any more"):
        watch(tmp_path)


def test_the_worst_task_of_an_array_is_its_exit_status(
    play: Play, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "log").write_text("loading\nhpcfed: row 1: no data\n")
    failed = line("FAILED", "9", "1", ExitCode="3:0", StdOut=tmp_path / "log")
    play(f"{line('COMPLETED', '8', '0')}\n{failed}")
    assert watch(tmp_path) == 3
    said = capsys.readouterr().err
    assert "job 7_1: FAILED, exit code 3" in said and "    hpcfed: row 1: no data" in said
    assert "job 7_0: COMPLETED" in said
    play(line("TIMEOUT"))
    assert watch(tmp_path) == 124


def test_what_sbatch_says_reaches_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sbatch = tmp_path / "sbatch"
    sbatch.write_text("#!/bin/sh\necho 'sbatch: error: invalid partition specified: gpu' >&2\nexit 1\n")
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(HpcfedError, match=r"sbatch refused .*: sbatch: error: invalid partition specified: gpu"):
        queue("#!/bin/sh\n", tmp_path / "run" / "submit.sbatch")
    sbatch.write_text("#!/bin/sh\necho '12;west'\n")
    assert queue("#!/bin/sh\n", tmp_path / "run" / "submit.sbatch") == "12"
    assert (tmp_path / "run" / "submit.sbatch").read_text() == "#!/bin/sh\n"


def test_a_partition_that_is_too_small_or_too_short_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sinfo = tmp_path / "sinfo"
    sinfo.write_text("#!/bin/sh\nprintf 'short*|3|30:00\\nshort*|1|30:00\\nlarge|64|2-00:00:00\\nany|4|infinite\\n'\n")
    sinfo.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    spec = JobSpec(recipes=("digits",), out=Path("run"), nodes=4, tasks=1, time="30", line="")
    for fits in ({}, {"partition": "large", "nodes": 64}, {"partition": "any", "time": "9-0"}, {"partition": "no"}):
        check_limits(replace(spec, **fits))
    with pytest.raises(ConfigError, match=r"--nodes 5: partition short has 4; these have enough: large \(64\)"):
        check_limits(replace(spec, nodes=5))
    with pytest.raises(ConfigError, match="--time 31: partition short allows 30:00; use --time 30:00"):
        check_limits(replace(spec, time="31"))
