"""Rows of several ranks: one orbit, one fingerprint, however many ranks hold the model; live runs agree on everything.

Sharded sums are rounded in another order, so a slope that is almost 0 may have the other sign: how often is counted.
"""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MptConfig, MptForCausalLM

from hpcfed.algorithms.header import make_header
from hpcfed.config import ModelConfig
from hpcfed.model import load_model
from hpcfed.orbit import load_any, pack_signs, seal
from hpcfed.plan.plan import make_plan
from hpcfed.train.build import build_pool
from hpcfed.train.problem import build_problem
from hpcfed.train.replay import replay_into
from hpcfed.weights import Weights
from tests.support import shard_checks
from tests.support.harness import fails, launch, mpirun
from tests.support.shard_checks import (
    DTYPES,
    FAMILIES,
    LAUNCHES,
    LONG,
    PLACES,
    ROUNDS,
    VARIANTS,
    WRITERS,
    killed,
    recipe_of,
    written,
)
from tests.support.small import (
    VOCABULARY,
    save_tiny_folder,
    sentences,
    tiny_config,
    tiny_sst2,
    tiny_tokenizer,
    write_jsonl,
)
from tests.support.torchrun import ONE_HOST, ended, job, kill, rounds


@pytest.fixture(scope="module", autouse=True)
def _needs_deepspeed() -> None:
    if importlib.util.find_spec("deepspeed") is None:
        reason = "deepspeed is not installed; pip install deepspeed"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Model folders, data, and an orbit with given votes for every family and dtype, made in one process."""
    tmp = tmp_path_factory.mktemp("shards")
    tiny_sst2(tmp)
    for name, seen in PLACES.items():
        for k in seen:
            write_jsonl(tmp / name / f"{k}.jsonl", sentences(3 + 2 * k, 100 + k))
        lines = [{"id": f"c{k}", "data": f"{k}.jsonl"} for k in range(6)]
        write_jsonl(tmp / name / "clients.jsonl", lines)
    for family in ("opt", "llama", "roberta"):
        save_tiny_folder(tmp, family).rename(tmp / family)
    _group_queries(tmp / "llama")
    _fuse_queries(tmp / "mpt")
    for family in FAMILIES:
        for dtype in DTYPES:
            recipe = recipe_of(str(tmp), family, f"model.dtype={dtype}", "algorithm.directions=2")
            problem = build_problem(recipe)
            pool = build_pool(recipe, problem.task)
            header = make_header(recipe, problem.weights, problem.kind, problem.task.labels, pool)
            votes = np.random.default_rng(7).choice([-1, 1], (ROUNDS, 2))
            decisions = [pack_signs(signs) for signs in votes]
            replay_into(header, decisions, problem.weights)
            seal(tmp / f"{family}-{dtype}.safetensors", header, decisions, problem.weights.fingerprint())
            if family in WRITERS and dtype == "float32":
                answers = written(problem.model, problem.weights)
                (tmp / f"{family}-written.json").write_text(json.dumps(answers))
    return str(tmp)


def _group_queries(path: Path) -> None:
    """Make the Llama one of 8 query heads and 4 key-value heads, so that 2 and 3 shards have some of each, in files."""
    config = LlamaConfig(
        **tiny_config("llama").to_dict() | {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 4}
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = LlamaForCausalLM(config)
        for name, p in model.named_parameters():
            p.data = (1.0 if p.dim() == 1 and name.endswith("weight") else 0.0) + 0.2 * torch.randn(p.shape)
    (path / "model.safetensors").unlink()
    model.save_pretrained(path, max_shard_size="40KB")
    assert (path / "model.safetensors.index.json").exists()


def _fuse_queries(path: Path) -> None:
    """An MPT, whose queries, keys and values are one weight: a shard holds three runs of its rows."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        model = MptForCausalLM(MptConfig(vocab_size=VOCABULARY, d_model=32, n_layers=2, n_heads=4, max_seq_len=128))
        for p in model.parameters():
            p.data = (1.0 if p.dim() == 1 else 0.0) + 0.2 * torch.randn(p.shape)
    model.save_pretrained(path)
    tiny_tokenizer("opt").save_pretrained(path)


@pytest.fixture(scope="module")
def orbits(folder: str) -> dict[str, Any]:
    """The fingerprint that each orbit leads to, and what the whole model then writes, as one process found."""
    found = {f"{f}-{d}": load_any(Path(folder, f"{f}-{d}.safetensors")).fingerprint for f in FAMILIES for d in DTYPES}
    return found | {"written": {f: json.loads(Path(folder, f"{f}-written.json").read_text()) for f in WRITERS}}


@pytest.fixture(scope="module")
def launched(folder: str) -> dict[str, list[Any]]:
    """What the ranks of each launch found."""
    out = Path(folder, "launched")
    out.mkdir()
    done = launch("ranks", 1, [shard_checks.__file__, folder, str(out)], timeout=240)
    assert done.code == 0, done.output
    files = {name: [Path(out, name, f"{rank}.json") for rank in range(n)] for name, n in LAUNCHES.items()}
    return {name: [json.loads(file.read_text()) for file in found] for name, found in files.items()}


@pytest.fixture(scope="module")
def two(launched: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return launched["alone_and_spread"]


@pytest.fixture(scope="module")
def four(launched: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return launched["live"]


def test_one_orbit_and_one_set_of_answers_on_two_shards(two: list[dict[str, Any]], orbits: dict[str, Any]) -> None:
    assert [found["replayed"] for found in two] == [orbits] * 2


def test_a_plan_knows_what_a_shard_holds(two: list[dict[str, Any]], folder: str) -> None:
    for family in FAMILIES:
        plan = make_plan(recipe_of(folder, family))
        for found in two:
            assert found["held"][family] == pytest.approx(plan.memory.shard(plan.split, 2).weights, rel=0.05), family


def test_one_orbit_and_one_set_of_answers_on_three_shards_of_uneven_size(
    launched: dict[str, list[Any]], orbits: dict[str, Any]
) -> None:
    assert launched["three"] == [orbits] * 3


def test_a_spread_model_is_saved_as_a_folder(two: list[Any], folder: str, orbits: dict[str, Any]) -> None:
    for family, kind in (("opt", "causal-lm"), ("llama", "causal-lm"), ("mpt", "causal-lm"), ("roberta", "masked-lm")):
        for dtype in DTYPES:
            path = Path(folder, f"saved-{family}-{dtype}-2")
            model = load_model(ModelConfig(name=str(path), dtype=dtype), kind)
            assert Weights(model).fingerprint() == orbits[f"{family}-{dtype}"]
            assert (path / "tokenizer.json").exists()


def test_traps(two: list[dict[str, Any]]) -> None:
    for found in (each["traps"] for each in two):
        assert found["random state kept"] and found["tied"] and found["ranks of the world"] == 2
        assert found["right"] == "nothing"
        assert "ConfigError: mesh.shards=2: the shards compute logits that are" in found["wrong group"]
        assert "ConfigError: mesh.shards=2: the shards cannot compute (RuntimeError" in found["misfit"]
        assert found["shards differ"].startswith("DivergedError: the 2 shards of a row differ in parameters")
        assert found["one shard fails"] == "ConfigError: this shard cannot go on"
        assert "the shards hold other weights than the whole model" in found["exchanged"]
        assert found["left out"] == ["mesh.check left out: the whole model takes over a quarter of the free memory"]


def test_slopes_agree_with_those_of_whole_models(two: list[Any], four: list[Any], capsys: Any) -> None:
    """Given the same votes, two rows of two shards and two rows of one follow the same directions with the same
    weights; how many votes would differ is printed."""
    assert [found["place"] for found in four] == [[0, 0, 0], [0, 1, 1], [1, 0, 2], [1, 1, 3]]
    for dtype in DTYPES:
        whole = np.concatenate([found["slopes"][dtype] for found in two], 1)
        spread = np.concatenate([four[rank]["slopes"][dtype] for rank in (0, 2)], 1)
        assert whole.shape == spread.shape == (ROUNDS, 6, 2)
        for shard in (1, 3):
            assert four[shard]["slopes"] == four[shard - 1]["slopes"]
        differ = np.sign(whole) != np.sign(spread)
        with capsys.disabled():
            print(f"\n{dtype}: {differ.sum()} of {differ.size} votes differ;", end=" ")
            print(f"slopes of size {np.std(whole):.2g} are {np.std(spread - whole):.2g} apart")
        if dtype == "float32":
            np.testing.assert_allclose(spread, whole, atol=0.01 * np.std(whole))
            assert (np.abs(whole[differ]) < 0.01 * np.std(whole)).all()
        else:
            assert np.corrcoef(spread.ravel(), whole.ravel())[0, 1] > 0.9


def test_live_runs_on_two_rows_of_two(four: list[dict[str, Any]], folder: str) -> None:
    for found in four:
        assert found["runs"] == four[0]["runs"]
        assert [found["runs"][name][1:3] for name in VARIANTS] == [["finished", ROUNDS]] * len(VARIANTS)
        assert found["runs"]["feedsign"][-2:] == [2, 2]
    assert len({run[0] for run in four[0]["runs"].values()}) == len(VARIANTS)
    summary = json.loads(Path(folder, "feedsign", "summary.json").read_text())
    assert summary["wire_payload_bytes"] == 3 * ROUNDS


def test_a_live_run_replays_on_one_rank(four: list[dict[str, Any]], folder: str) -> None:
    orbit = load_any(Path(folder, "feedsign", "orbit.safetensors"))
    problem = build_problem(recipe_of(folder, "opt"))
    assert problem.weights.fingerprint() == orbit.header.base_fingerprint
    replay_into(orbit.header, orbit.decisions, problem.weights)
    assert problem.weights.fingerprint() == orbit.fingerprint == four[0]["runs"]["feedsign"][0]


def test_rows_of_shards_go_back_to_the_best_round(four: list[dict[str, Any]], folder: str) -> None:
    """Their weights agree there, and are those that one rank rebuilds from the sealed rounds."""
    orbit = load_any(Path(folder, "kept"))
    told = json.loads(Path(folder, "kept", "summary.json").read_text())
    assert orbit.rounds == told["kept_round"] < ROUNDS == told["rounds"]
    problem = build_problem(recipe_of(folder, "opt"))
    replay_into(orbit.header, orbit.decisions, problem.weights)
    assert {problem.weights.fingerprint(), orbit.fingerprint} == {found["runs"]["kept"][0] for found in four}


def test_a_signal_to_any_rank_ends_all(four: list[dict[str, Any]]) -> None:
    assert len({json.dumps(found["stopped"]) for found in four}) == 1
    assert four[0]["stopped"][1] == "interrupted" and 5 <= four[0]["stopped"][2] < 40
    assert all(found["resumed"] == four[0]["undisturbed"] for found in four)


def test_torchrun_starts_a_killed_shard_anew(two: list[dict[str, Any]], folder: str) -> None:
    """One row of two: its world is built anew on a store that knows no dead address, and the run goes on by itself."""
    out, recipe = Path(folder, "risen"), Path(folder, "nobody-killed", "recipe.toml")
    with job(ONE_HOST, ["-m", "hpcfed", "train", str(recipe), "--out", str(out)]) as (agents, output):
        kill(agents, out, who=1, after=10)
        text = ended(agents, output)
    assert text.count("torchrun started the ranks anew: going on with the run in") == 1, text
    assert rounds(out) == list(range(1, LONG + 1))
    found, right = (json.loads((path / "summary.json").read_text()) for path in (out, recipe.parent))
    assert found["fingerprint"] == right["fingerprint"] == two[0]["undisturbed"][0] == two[1]["undisturbed"][0]
    assert (found["rows"], found["shards"], found["status"]) == (1, 2, "finished")
    assert (out / "orbit.safetensors").read_bytes() == (recipe.parent / "orbit.safetensors").read_bytes()


def test_clients_with_files_of_their_own(two: list[Any], four: list[Any], folder: str) -> None:
    """Two rows, neither of which sees the other's files, are the run of one row that sees all."""
    results = [found["manifest"] for found in (*two, *four)]
    assert [found[-2:] for found in results] == [[1, 2]] * 2 + [[2, 2]] * 4
    assert {json.dumps(found[:-2]) for found in results} == {json.dumps(results[0][:-2])}
    one, rows = (Path(folder, name) for name in ("manifest-1", "manifest-2"))
    for name in ("orbit.safetensors", "partition.json"):
        assert (one / name).read_bytes() == (rows / name).read_bytes()
    assert json.loads((one / "partition.json").read_text())
    for found in four:
        assert found["gone"].startswith("ConfigError: ranks 2-3: clients.manifest='clients.jsonl', line 6 ('c5'): ")


def test_a_killed_shard_is_said_in_one_line(folder: str) -> None:
    output = fails(2, killed, folder).output
    assert "hpcfed: rank 0" in output and ("lost another shard (" in output or "lost rank 1 (" in output), output
    assert "Traceback" not in output


def test_the_command_under_mpirun(folder: str) -> None:
    """Four ranks in rows of two; then two ranks replay the result as one row."""
    mpirun()
    recipe = Path(folder, "feedsign", "recipe.toml")
    out = Path(folder, "mpirun")
    argv = ["-m", "hpcfed", "train", str(recipe), "--set", "rounds=5", "--out", str(out), "--quiet"]
    done = launch("mpirun", 4, argv, timeout=180)
    assert done.code == 0, done.output
    fingerprint = json.loads((out / "summary.json").read_text())["fingerprint"]
    done = launch("mpirun", 2, ["-m", "hpcfed", "orbit", "verify", str(out), "--base", f"{folder}/opt"])
    assert done.code == 0 and done.output.count(f"replay gives fingerprint {fingerprint}, as the run did") == 1, (
        done.output
    )
