"""The command line in this process: what a user types, what is printed, which files are left."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib import resources
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hpcfed.orbit import load, load_any
from hpcfed.runs.read import REQUIRED_KEYS
from hpcfed.tasks.digits import digits_arrays
from tests.support.command import hpcfed, ok, refused, settings
from tests.support.harness import ROOT, environment
from tests.support.small import save_tiny_folder, tiny_sst2

SHIPPED = Path(str(resources.files("hpcfed") / "recipes" / "digits"))
ROUNDS = 40
COMMANDS = [
    ["train"], ["evaluate"], ["orbit"], ["orbit", "show"], ["orbit", "verify"], ["orbit", "replay"], ["compare"],
    ["plot"], ["privacy"], ["version"],
]  # fmt: skip


def summary(run: Path) -> dict:
    return json.loads((run / "summary.json").read_text())


def percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


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


def changed_base(folder: Path) -> Path:
    """The shipped model with one weight changed."""
    shutil.copytree(SHIPPED, folder)
    weights = load_file(folder / "model.safetensors")
    name = sorted(weights)[0]
    weights[name].view(-1)[0] += 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


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


# --- orbits ----------------------------------------------------------------------------------------------------------


def test_orbit_show_and_verify(run: Path):
    for file in (run, run / "orbit.safetensors", run / "journal"):
        said = ok("orbit", "show", file)
        assert all(part in said.out for part in ("feedsign", "digits-vit", summary(run)["fingerprint_base"], "40"))
        assert "intact, 40 rounds of feedsign" in ok("orbit", "verify", file).out
    said = ok("orbit", "verify", run, "--base", "digits-vit")
    assert f"replay gives fingerprint {summary(run)['fingerprint']}, as the run did" in said.out


def test_orbit_replay_writes_what_transformers_loads(run: Path, tmp_path: Path):
    from transformers import AutoModelForImageClassification

    out = tmp_path / "tuned"
    said = ok("orbit", "replay", run, "--base", "digits-vit", "--out", out)
    assert summary(run)["fingerprint"] in said.out
    model = AutoModelForImageClassification.from_pretrained(out).eval()
    images, labels = digits_arrays()["test"]
    with torch.inference_mode():
        predicted = model(pixel_values=torch.from_numpy(images)).logits.argmax(-1).numpy()
    assert (predicted == labels).mean() == pytest.approx(summary(run)["metric_after"])
    assert percent(summary(run)["metric_after"]) in ok("evaluate", out, "--recipe", "digits").out
    assert "not empty" in refused("orbit", "replay", run, "--base", "digits-vit", "--out", out)


def test_orbit_replay_to_a_round(run: Path, tmp_path: Path):
    some, none = tmp_path / "some", tmp_path / "none"
    said = ok("orbit", "replay", run, "--base", "digits-vit", "--out", some, "--rounds", 20)
    assert "after 20 rounds" in said.out and summary(run)["fingerprint"] not in said.out
    at_20 = next(
        json.loads(s) for s in (run / "metrics.jsonl").read_text().splitlines() if '"split"' in s and '"t": 20' in s
    )
    assert percent(at_20["value"]) in ok("evaluate", some, "--recipe", "digits").out
    said = ok("orbit", "replay", run, "--base", "digits-vit", "--out", none, "--rounds", 0)
    assert summary(run)["fingerprint_base"] in said.out
    message = refused("orbit", "replay", run, "--base", "digits-vit", "--out", tmp_path / "x", "--rounds", 41)
    assert "only 40 rounds" in message and not (tmp_path / "x").exists()


def test_orbit_of_another_model(run: Path, tmp_path: Path):
    out = tmp_path / "out"
    for base, words in [
        (changed_base(tmp_path / "changed"), "starts from other weights"),
        (save_tiny_folder(tmp_path, "vit", labels=10), "another parameter layout"),
    ]:
        assert words in refused("orbit", "verify", run, "--base", base)
        assert words in refused("orbit", "replay", run, "--base", base, "--out", out)
    assert not out.exists()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_orbits_of_16_bit_runs_replay(tmp_path: Path, dtype: str):
    ok("train", "digits", *settings(rounds=12, model__dtype=dtype), "--out", tmp_path / "run", "--quiet")
    assert ", as the run did" in ok("orbit", "verify", tmp_path / "run", "--base", "digits-vit").out


def test_a_text_model_from_a_local_folder(tmp_path: Path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, data = save_tiny_folder(tmp_path, "opt"), tiny_sst2(tmp_path)
    more = settings(rounds=6, model__name=model, task__data=data, task__train_limit=40, clients__batch=4)
    ok("train", "sst2-opt-125m", *more, "--out", tmp_path / "run", "--quiet")
    ok("orbit", "replay", tmp_path / "run", "--base", model, "--out", tmp_path / "tuned")
    assert AutoTokenizer.from_pretrained(tmp_path / "tuned").pad_token == "<pad>"
    assert isinstance(AutoModelForCausalLM.from_pretrained(tmp_path / "tuned"), torch.nn.Module)
    said = ok("evaluate", tmp_path / "tuned", "--recipe", tmp_path / "run" / "recipe.toml")
    assert percent(summary(tmp_path / "run")["metric_after"]) in said.out
    assert not any(str(tmp_path) in line for line in (tmp_path / "run" / "orbit.safetensors").open(errors="replace"))


# --- compare ---------------------------------------------------------------------------------------------------------


def test_compare(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(run.parent)
    other = tmp_path / "second"
    ok("train", "digits", *settings(rounds=5), "--out", other, "--quiet")
    shutil.copytree(other, run.parent / "second", dirs_exist_ok=True)
    said = ok("compare", "first", "second")
    assert "first" in said.out and "second" in said.out and percent(summary(run)["metric_after"]) in said.out
    assert "nowhere" in refused("compare", "first", "nowhere")


def test_the_command_starts_without_torch():
    heavy = "{'torch', 'numpy', 'transformers', 'numba'}"
    code = f"import sys; import hpcfed.cli.main; sys.exit(bool({heavy} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, env=environment(dict(os.environ)))
