"""The command line in this process: what a user types, what is printed, which files are left.

The commands about orbits are in test_orbit.py, those for clusters in test_cluster.py.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from hpcfed.orbit import load, load_any
from hpcfed.runs.read import REQUIRED_KEYS
from tests.support.command import hpcfed, ok, refused, settings
from tests.support.digits import SHIPPED, changed_base, percent, summary
from tests.support.harness import ROOT, environment

ROUNDS = 40
COMMANDS = [
    ["train"], ["evaluate"], ["orbit"], ["orbit", "show"], ["orbit", "verify"], ["orbit", "replay"], ["compare"],
    ["plot"], ["privacy"], ["version"],
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 40 rounds."""
    out = tmp_path_factory.mktemp("runs") / "first"
    more = settings(rounds=ROUNDS, eval_every=20, tensorboard="true", algorithm__lr="5e-3")
    said = ok("train", "digits", *more, "--out", out)
    assert "after round 0: test accuracy" in said.err and "after round 40: test accuracy" in said.err
    assert "finished after 40 rounds" in said.out and f"run folder: {out}" in said.out
    assert summary(out)["fingerprint"] in said.out
    return out


def test_evaluate_prints_one_json_object(run: Path, tmp_path: Path):
    file = tmp_path / "answers.jsonl"
    said, told = ok("evaluate", run, "--json", "--predictions", file), summary(run)
    (score,) = json.loads(said.out).values()
    assert score["value"] == score["values"]["accuracy"] == told["metric_after"] and score["loss"] == told["loss_after"]
    assert len(file.read_text("utf-8").splitlines()) == score["examples"]


# --- help ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example(command: list[str]):
    said = ok(*command, "--help")
    assert f"Example: hpcfed {' '.join(command)}" in " ".join(said.out.split())


def test_hpcfed_alone_shows_its_commands():
    said = hpcfed()
    assert all(command in said.out + said.err for command in ("train", "evaluate", "orbit", "compare", "plot"))
    assert ok("version").out.strip()


def test_a_mistyped_option_is_a_usage_error():
    said = hpcfed("train", "digits", "--rounds", "3")
    assert said.code == 2 and "No such option" in said.err and "Traceback" not in said.err


# --- train -----------------------------------------------------------------------------------------------------------


def test_what_a_run_leaves(run: Path):
    found = summary(run)
    assert set(REQUIRED_KEYS) <= found.keys() and found["status"] == "finished" and found["rounds"] == ROUNDS
    assert 0 <= found["metric_before"] <= 1 and 0 <= found["metric_after"] <= 1
    assert found["orbit_bytes"] == (run / "orbit.safetensors").stat().st_size < 2000
    assert found["uplink_bits_per_client_round"] == 1 and found["wire_payload_bytes"] == 0
    assert found["fingerprint"] == load(run / "orbit.safetensors").fingerprint
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rounds = [line for line in lines if "agreement" in line]
    assert [line["t"] for line in rounds] == list(range(1, ROUNDS + 1))
    assert {"loss", "uplink_bits_per_client", "payload_bytes", "collectives", "abstained"} <= rounds[0].keys()
    assert [line["t"] for line in lines if "split" in line] == [0, 20, 40]
    env = json.loads((run / "env.json").read_text())
    assert env["format"] == "hpcfed-run" and str(torch.__version__) in json.dumps(env)
    assert list((run / "tensorboard").glob("events*"))
    assert not (run / "lock").exists()


def test_the_resolved_recipe_runs_again_to_the_same_orbit(run: Path, tmp_path: Path):
    said = ok("train", run / "recipe.toml", "--set", "tensorboard=false", "--out", tmp_path / "again", "--quiet")
    assert (said.out, said.err) == ("", "")
    again = tmp_path / "again" / "orbit.safetensors"
    assert again.read_bytes() == (run / "orbit.safetensors").read_bytes()


def test_a_finished_run_is_not_overwritten_without_force(run: Path, tmp_path: Path):
    out = tmp_path / "copy"
    shutil.copytree(run, out)
    before = {file.name: file.read_bytes() for file in out.iterdir() if file.is_file()}
    for more in ([], ["--resume"]):
        message = refused("train", "digits", *settings(rounds=2), "--out", out, *more)
        assert "holds a finished run" in message and "--force" in message
    # A wrong setting does not cost the old run either.
    assert "layers" in refused(
        "train", "digits", "--force", "--out", out, *settings(algorithm__train_only='["layers"]')
    )
    assert {file.name: file.read_bytes() for file in out.iterdir() if file.is_file()} == before
    ok("train", "digits", *settings(rounds=2), "--out", out, "--force")
    assert summary(out)["rounds"] == 2
    assert (tmp_path / "copy.old-1" / "orbit.safetensors").read_bytes() == before["orbit.safetensors"]


def test_resume_of_nothing_is_a_new_run_and_of_another_recipe_is_refused(run: Path, tmp_path: Path):
    out = tmp_path / "run"
    ok("train", "digits", *settings(rounds=3), "--out", out, "--resume", "--quiet")
    (out / "summary.json").unlink()  # as if it had been killed at the very end
    message = refused("train", "digits", *settings(rounds=3), "--out", out)
    assert "unfinished run" in message and "--resume" in message
    message = refused("train", "digits", *settings(rounds=3, algorithm__lr=1), "--out", out, "--resume")
    assert "algorithm.lr: " in message and "-> 1.0" in message
    ok("train", "digits", *settings(rounds=3), "--out", out, "--resume", "--quiet")
    assert summary(out)["metric_before"] == summary(run)["metric_before"]


def test_a_live_run_keeps_its_folder_and_ends_cleanly(tmp_path: Path):
    out, env = tmp_path / "run", environment()
    argv = [sys.executable, "-m", "hpcfed", "train", "digits", "--set", "rounds=1000000", "--out", str(out)]
    with subprocess.Popen(argv, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as child:
        try:
            end = time.monotonic() + 90
            while not (out / "metrics.jsonl").exists() and time.monotonic() < end and child.poll() is None:
                time.sleep(0.05)
            for more in ([], ["--resume"], ["--force"]):
                message = refused("train", "digits", *settings(rounds=2), "--out", out, *more)
                assert f"in use by process {child.pid}" in message
            child.send_signal(signal.SIGTERM)
            output = child.communicate(timeout=60)[0].decode()
        finally:
            child.kill()
    assert child.returncode == 0 and "interrupted after" in output and "--resume" in output, output
    assert summary(out)["status"] == "interrupted" and not (out / "orbit.safetensors").exists()
    assert load_any(out).rounds == summary(out)["rounds"]


# --- evaluate --------------------------------------------------------------------------------------------------------


def test_evaluate_recipe_run_orbit_and_model(run: Path, tmp_path: Path):
    before, after = (percent(summary(run)[key]) for key in ("metric_before", "metric_after"))
    assert before != after
    assert before in ok("evaluate", "digits").out
    assert after in ok("evaluate", run).out
    assert after in ok("evaluate", "digits", "--orbit", run / "orbit.safetensors").out
    assert after in ok("evaluate", "digits", "--orbit", run / "journal").out
    assert before in ok("evaluate", SHIPPED, "--recipe", "digits").out
    assert "--recipe" in refused("evaluate", SHIPPED)
    base = changed_base(tmp_path / "changed")
    message = refused("evaluate", base, "--recipe", "digits", "--orbit", run)
    assert "starts from other weights" in message and "digits-vit" in message
    message = refused("evaluate", "digits", "--orbit", run, *settings(model__dtype="bfloat16"))
    assert "made with float32 weights" in message


# --- compare ---------------------------------------------------------------------------------------------------------


def test_compare(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(run.parent)
    other = tmp_path / "second"
    ok("train", "digits", *settings(rounds=5), "--out", other, "--quiet")
    shutil.copytree(other, run.parent / "second", dirs_exist_ok=True)
    said = ok("compare", "first", "second")
    assert "first" in said.out and "second" in said.out and percent(summary(run)["metric_after"]) in said.out
    assert "nowhere" in refused("compare", "first", "nowhere")
