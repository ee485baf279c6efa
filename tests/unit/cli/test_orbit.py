"""The commands about orbits, as a user types them: what an orbit says, whether it is whole, the model it rebuilds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from hpcfed.tasks.digits import digits_arrays
from tests.support.command import ok, refused, settings
from tests.support.digits import changed_base, percent, summary
from tests.support.small import save_tiny_folder, tiny_sst2


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 40 rounds."""
    out = tmp_path_factory.mktemp("runs") / "first"
    ok("train", "digits", *settings(rounds=40, eval_every=20, algorithm__lr="5e-3"), "--out", out, "--quiet")
    return out


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


def test_a_journal_replays_and_has_nothing_to_compare_with(run: Path):
    said = ok("orbit", "verify", run / "journal", "--base", "digits-vit")
    assert f"replayed to {summary(run)['fingerprint']}; a journal holds no final fingerprint" in said.out
