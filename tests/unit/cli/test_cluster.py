"""submit, plan and doctor from the command line. Slurm is played by scripts on PATH; tests/slurm has the real one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.command import hpcfed, ok, refused, settings
from tests.support.runs import made_up_summary

BASE = ["submit", "digits", "--nodes", "1", "--time", "10", "--dry-run"]


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Slurm with one small partition, whose sbatch notes in the file `queued` what it was given; its folder."""
    scripts = {"sinfo": "echo 'short*|3|30:00'", "sbatch": 'echo "$2" >> {folder}/queued; echo 12'}
    for name, line in scripts.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{line.format(folder=tmp_path)}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def test_without_slurm_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    message = refused(*BASE[:-1], "--out", tmp_path / "run")
    assert "no sinfo here" in message and "--dry-run shows the script" in message and not (tmp_path / "run").exists()


def test_what_is_queued_is_what_dry_run_shows(slurm: Path):
    out = slurm / "run"
    said = ok(*BASE[:-1], "--out", out)
    assert said.out == "12\n"  # the job's number alone, for scripts
    assert f"submitted {out}/submit.sbatch; it will write {out}/slurm-12.log" in said.err
    assert (slurm / "queued").read_text() == f"{out}/submit.sbatch\n"
    assert (out / "submit.sbatch").read_text() == ok(*BASE, "--out", out).out


def test_a_job_that_would_be_refused_in_the_end_is_refused_at_once(slurm: Path):
    out = slurm / "run"
    ok("train", "digits", *settings(rounds=2, task__eval_limit=20), "--out", out, "--quiet")
    same = [*BASE[:-1], "--out", out, *settings(rounds=2, task__eval_limit=20)]
    assert "holds a run that is finished; choose another --out" in refused(*same)
    (out / "summary.json").unlink()  # as if it had been killed
    message = refused(*same, *settings(algorithm__lr=1))
    assert "holds an unfinished run with other settings (algorithm.lr: " in message and "-> 1.0" in message
    assert "--nodes 4: partition short has 3" in refused(*same, "--nodes", "4")
    assert not (slurm / "queued").exists()
    assert ok(*same, *settings(eval_every=1)).out == "12\n"  # goes on: the result does not depend on that setting


def test_an_interrupted_run_is_queued_again(slurm: Path):
    out = slurm / "run"
    ok("train", "digits", *settings(rounds=2, task__eval_limit=20), "--out", out, "--quiet")
    (out / "summary.json").write_text(json.dumps(made_up_summary(status="interrupted")))
    assert ok(*BASE[:-1], "--out", out, *settings(rounds=2, task__eval_limit=20)).out == "12\n"


def test_doctor_ends_with_1_if_something_is_wrong(tmp_path: Path):
    well = ok("doctor", "digits", "--out", tmp_path / "run")
    assert well.out.splitlines()[0].split() == ["rank", "node", "row", "shard", "device", "threads"]
    assert well.out.endswith("nothing is wrong\n") and not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    ill = hpcfed("doctor", "digits", "--out", tmp_path / "file" / "run")
    assert ill.code == 1 and "wrong: --out " in ill.out and "cannot write there" in ill.out
    assert "nothing is wrong" not in ill.out and [file.name for file in tmp_path.iterdir()] == ["file"]


def test_doctor_needs_no_recipe():
    assert ok("doctor").out.endswith("nothing is wrong\n")


def test_a_plan_says_what_a_run_of_it_takes(tmp_path: Path):
    said = ok("plan", "digits", *settings(rounds=2)).out
    ok("train", "digits", *settings(rounds=2, task__eval_limit=20), "--out", tmp_path / "run", "--quiet")
    found = json.loads((tmp_path / "run" / "summary.json").read_text())
    bits, size = found["uplink_bits_per_client_round"], found["orbit_bytes"]
    assert f"{bits} bit a round" in said and f"{size} B after 2 rounds" in said
