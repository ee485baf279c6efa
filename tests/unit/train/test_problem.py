"""A model and a task that fit: what is loaded, which logits are asked for, the examples that every row has."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hpcfed.config import Recipe, load_recipe
from hpcfed.errors import ConfigError
from hpcfed.model import load_model
from hpcfed.noise import engine
from hpcfed.orbit import Header
from hpcfed.train.build import build_run
from hpcfed.train.problem import _affordable, build_base, build_problem, few_inputs
from hpcfed.transport.solo import SoloTransport
from tests.support.digits import tiny
from tests.support.small import save_tiny_folder, tiny_sst2


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """Sentences for a tiny OPT."""
    folder = tmp_path_factory.mktemp("text")
    model, data = save_tiny_folder(folder, "opt"), tiny_sst2(folder)
    return load_recipe("sst2-opt-125m", [f"model.name={model}", f"task.data={data}", "mesh.threads=1"])


def test_forward_gives_the_logits_that_the_task_scores(text: Recipe):
    problem = build_problem(text)
    assert problem.kind == "causal-lm" and problem.task.head_rows is not None and problem.task.keep_last == 1
    inputs = few_inputs(text, problem.task)
    with torch.inference_mode():
        found = problem.forward(inputs)
        whole = load_model(text.model, "causal-lm")(**inputs).logits[:, -1:, problem.task.head_rows]
    assert found.shape == (3, 1, 2)
    torch.testing.assert_close(found, whole)


def test_few_inputs_are_a_short_a_middling_and_a_long_example(text: Recipe):
    task = build_problem(text).task
    lengths = sorted(task.tokens(task.train[i]) for i in range(64))
    mask = few_inputs(text, task)["attention_mask"]
    assert mask.sum(1).tolist() == [lengths[0], lengths[32], lengths[-1]]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_base_model_is_that_of_the_run(dtype: str):
    run = build_run(tiny(f"model.dtype={dtype}", 'algorithm.train_only=["classifier.*"]'), SoloTransport())
    header = Header.from_json(run.header.to_json())
    model, weights = build_base(header, "digits-vit", None, None)
    assert weights.fingerprint() == header.base_fingerprint and weights.layout_hash == header.layout_hash
    assert list(weights.params) == ["classifier.weight", "classifier.bias"]
    assert {p.dtype for p in model.parameters()} == {getattr(torch, dtype)}
    assert not model.training and not any(p.requires_grad for p in model.parameters())


def test_threads_are_those_of_the_recipe():
    assert torch.get_num_threads() == 1
    for setting in (3, 0):  # 0: as they are
        build_problem(tiny(f"mesh.threads={setting}"))
        assert torch.get_num_threads() == engine._threads == 3


def test_a_task_and_a_model_that_do_not_go_together(text: Recipe):
    with pytest.raises(ConfigError, match="about text, the model is an image classifier"):
        build_problem(tiny("task.name=sst2"))
    with pytest.raises(ConfigError, match="about images, the model is a causal-lm model"):
        build_problem(load_recipe("digits", [f"model.name={text.model.name}"]))


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="this system does not say how much memory is free")
def test_a_whole_model_is_read_where_it_is_small_beside_the_free_memory():
    problem = build_problem(tiny())
    assert _affordable(problem.weights, problem.model, 1)
    assert not _affordable(problem.weights, problem.model, 10**9)  # 82 kB each


@pytest.mark.parametrize(("more", "told"), [([], True), (["privacy.mechanism=central", "privacy.epsilon=1"], False)])
def test_a_private_run_does_not_tell_that_clients_hold_what_is_evaluated(tmp_path: Path, more: list[str], told: bool):
    model, data = save_tiny_folder(tmp_path, "opt"), tiny_sst2(tmp_path)
    (data / "validation.jsonl").write_bytes((data / "train.jsonl").read_bytes())
    problem = build_problem(load_recipe("sst2-opt-125m", [f"model.name={model}", f"task.data={data}", *more]))
    assert any("holds the same examples as train" in note for note in problem.notes) == told
