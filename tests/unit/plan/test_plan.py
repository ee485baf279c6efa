"""Plans: as much memory as real runs take, from a configuration alone; meshes that are possible; what is wrong else."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hpcfed.config import load_recipe, validate
from hpcfed.errors import ConfigError
from hpcfed.orbit import seal
from hpcfed.plan.plan import Speed, check_shapes, make_plan, parse_bytes, speed_of
from hpcfed.train.build import build_run
from hpcfed.train.round import State
from hpcfed.transport.choose import choose
from hpcfed.transport.launch import Launch
from tests.support.command import ok, refused
from tests.support.harness import environment
from tests.support.plan_checks import CASES, MALLOC
from tests.support.plans import planned
from tests.support.small import save_tiny_folder, tiny_sst2
from tests.support.zoo import zoo_model

SPEED = Speed(1e12, 1e9, "")


@pytest.mark.long
def test_memory_is_that_of_real_rounds(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "tests.support.plan_checks", str(tmp_path), *CASES]
    done = subprocess.run(line, env=environment(MALLOC), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [case["name"] for case in found] == list(CASES)
    off = {case["name"]: case["planned"] / case["took"] - 1 for case in found}
    assert all(abs(part) <= 0.15 for part in off.values()), off


def test_everything_from_the_configuration_alone(config_only: Path) -> None:
    said = ok("plan", "sst2-opt-125m", "--set", f"model.name={config_only}", "--nodes", 2, "--gpus-per-node", 2).out
    for words in ("parameters in float32", "1 bit a round", "3 bytes", "estimate", "20,000 rounds", "possible", "yes"):
        assert words in said, (words, said)
    plan = planned(config_only)
    assert plan.parameters == sum(p.numel() for p in _real(config_only).parameters())
    assert plan.memory.weights >= 4 * plan.parameters
    half = planned(config_only, "model.dtype=bfloat16").memory
    assert half.weights < 0.6 * plan.memory.weights and half.round < 0.7 * plan.memory.round


def test_opt_13b_without_weights_or_network(tmp_path: Path) -> None:
    """The line in the README, and what is known of this model."""
    text = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if line.startswith("python -c") and "OPTConfig" in line)
    subprocess.run(shlex.split(line.replace("python", sys.executable, 1)), cwd=tmp_path, check=True, timeout=120)
    assert [file.name for file in (tmp_path / "opt-13b").iterdir()] == ["config.json"]
    plan = planned(tmp_path / "opt-13b", "model.dtype=bfloat16", tokens=None)
    assert plan.parameters == 12_853_473_280
    assert 25.7e9 < plan.memory.weights < plan.memory.round < 27e9
    assert [plan.shards_needed(n * 10**9) for n in (80, 24, 12)] == [1, 2, 4]


def _real(folder: Path) -> torch.nn.Module:
    from transformers import AutoConfig, AutoModelForCausalLM

    return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))


def test_traffic_and_orbit_are_those_of_a_run(tmp_path: Path) -> None:
    model, data = save_tiny_folder(tmp_path, "opt"), tiny_sst2(tmp_path)
    settings = [f"model.name={model}", f"task.data={data}", "rounds=9", "clients.count=3", "clients.batch=4"]
    for more in ([], ["algorithm.name=zo-fedsgd"], ["algorithm.name=fedkseed", "algorithm.local_steps=2"]):
        recipe = load_recipe("sst2-opt-125m", [*settings, *more])
        run = build_run(recipe, choose(Launch()))
        plan = make_plan(recipe)
        assert (plan.up, plan.down) == run.bits and plan.trained == run.problem.weights.numel
        decisions = [bytes(run.header.round_bytes)] * recipe.rounds
        assert seal(tmp_path / "orbit", run.header, decisions, "0" * 32) == plan.orbit
        run.round(0, State())


def test_meshes(config_only: Path) -> None:
    plan = planned(config_only, "clients.count=4")
    shapes = plan.shapes(2, 4, None, SPEED)
    assert [(s.rows, s.shards, s.problem) for s in shapes] == [
        (8, 1, "more rows than groups of clients (4)"),
        (4, 2, ""),
        (2, 4, ""),
        (1, 8, "the model has 4 attention heads and a head is never split; use 1 to 4"),
    ]
    assert shapes[0].memory > shapes[1].memory > shapes[2].memory
    none = plan.shapes(2, 4, 1000, SPEED)
    assert all(s.problem == "does not fit" for s in none)
    with pytest.raises(ConfigError, match=r"no mesh of 8 ranks is possible.*does not fit.*GB at least"):
        check_shapes(plan.recipe, none, 1000)
    three = load_recipe("sst2-opt-125m", [f"model.name={config_only}", "mesh.shards=3"])
    with pytest.raises(ConfigError, match=r"mesh.shards=3: does not divide the 8 ranks; possible are 2 \(rows: 4\), 4"):
        check_shapes(three, shapes, None)
    assert {s.shards: s.problem for s in plan.shapes(3, 2, None, SPEED)}[3] == "a row would straddle nodes unevenly"


def test_shards_needed(config_only: Path) -> None:
    plan = planned(config_only)
    needs = [int(plan.rank_memory(n, gpu=True) / 0.9) + 2 for n in (1, 2, 4)]
    assert [plan.shards_needed(n) for n in (*needs, needs[0] - 4, 1000)] == [1, 2, 4, 2, None]


def test_wrong_figures(config_only: Path) -> None:
    line = ["plan", "sst2-opt-125m", "--set", f"model.name={config_only}"]
    assert "--gpu-memory '80 apples'" in refused(*line, "--gpu-memory", "80 apples")
    assert "--tflops -1" in refused(*line, "--tflops", "-1")
    assert "--tokens 500: the model has only 128 positions" in refused(*line, "--tokens", 500)
    assert "no mesh of 1 ranks is possible" in refused(*line, "--gpu-memory", "100kB")
    assert 'local_steps="epoch"' in refused(
        *line, "--set", "algorithm.name=zo-fedavg", "--set", "algorithm.local_steps=epoch"
    )
    assert "there is no such folder" in refused("plan", "sst2-opt-125m", "--set", "model.name=./nowhere")


@pytest.mark.parametrize(
    ("text", "right"), [("80GB", 80 * 10**9), ("1.5 GiB", 3 * 2**29), ("512M", 512 * 10**6), ("7", 7)]
)
def test_sizes(text: str, right: int) -> None:
    assert parse_bytes("--gpu-memory", text) == right


def test_the_estimate_says_what_it_assumes(config_only: Path) -> None:
    recipe = load_recipe("sst2-opt-125m", [f"model.name={config_only}", "mesh.threads=2"])
    assert "measured" in speed_of(recipe, False).what and "a guess" in speed_of(recipe, True).what
    assert speed_of(recipe, True, 5.0, 7.0) == Speed(5e12, 7e9, "5 TFLOP/s (as you say), 7 G/s drawn (as you say)")
    plan = planned(config_only)
    assert plan.seconds(1, 1, SPEED) > plan.seconds(5, 1, SPEED) > plan.seconds(5, 2, SPEED)


@pytest.mark.parametrize(("family", "whole"), [("bart", True), ("esm", True), ("mobilebert", True), ("roberta", False)])
def test_a_head_that_must_be_computed_whole_is_planned_whole(tmp_path: Path, family: str, whole: bool) -> None:
    zoo_model("masked-lm", family, {}).save_pretrained(tmp_path)
    recipe = load_recipe("sst2-opt-125m", [f"model.name={tmp_path}", "eval_batch=512"])
    logits = 4 * 512 * 60 * 512  # bytes: examples, positions, vocabulary
    assert (make_plan(recipe, tokens=60).memory.evaluation > 0.9 * logits) == whole


def test_a_plan_of_answers_speaks_of_no_classes_and_a_reward_reads_all_candidates(tmp_path):
    raw = {"rounds": 2, "model": {"name": str(save_tiny_folder(tmp_path, "llama"))}, "algorithm": {"lr": 1e-3}}
    plans = [make_plan(validate(raw | {"task": {"name": "copa", "objective": o}})) for o in ("auto", "accuracy")]
    assert [note for note in plans[0].notes if "class" in note] == []
    assert any("32 tokens long, 2 candidates" in note for note in plans[0].notes)
    assert plans[1].memory.forward == 2 * plans[0].memory.forward
