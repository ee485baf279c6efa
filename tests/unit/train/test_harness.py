"""Scores of lm-evaluation-harness: those that lm_eval itself finds in the folder that the run becomes."""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import numpy as np
import pytest
import torch

import hpcfed
from hpcfed.errors import ConfigError
from hpcfed.train import harness as module
from hpcfed.train.harness import harness
from tests.support.command import hpcfed as command
from tests.support.command import ok, refused
from tests.support.small import GOOD, THINGS, save_tiny_folder, tiny_sst2, write_jsonl

needs_lm_eval = pytest.mark.skipif(
    module.find_spec("lm_eval") is None or module.find_spec("accelerate") is None,
    reason="no lm_eval here: pip install hpcfed[lm-eval]",
)

CHOICE = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "the {{{{thing}}}} is"
doc_to_choice: "{{{{words}}}}"
doc_to_target: "{{{{right}}}}"
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""
WRITTEN = """
task: own_written
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
num_fewshot: 0
output_type: generate_until
doc_to_text: "the {{{{thing}}}} is"
doc_to_target: "the quick brown fox jumps over the lazy dog"
generation_kwargs: {{until: ["."], max_gen_toks: 16}}
metric_list: [{{metric: exact_match}}, {{metric: chrf}}]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two rounds, the model that it began with, and lm_eval's tasks choice.yaml and written.yaml."""
    folder = tmp_path_factory.mktemp("harness")
    model = save_tiny_folder(folder, "llama")
    settings = [
        f"model.name={model}", f"task.data={tiny_sst2(folder, 12, 4, 4)}", "rounds=2", "clients.count=2",
        "clients.batch=4", "algorithm.lr=1e-2", "eval_batch=3",
    ]  # fmt: skip
    hpcfed.train(hpcfed.load_recipe("sst2-opt-125m", settings), folder / "run", quiet=True)
    rows = [{"thing": THINGS[i % len(THINGS)], "words": GOOD[: 2 + i % 3], "right": i % 2} for i in range(8)]
    data = write_jsonl(folder / "rows.jsonl", rows)
    (folder / "choice.yaml").write_text(CHOICE.format(name="own_choice", data=data))
    (folder / "written.yaml").write_text(WRITTEN.format(data=data))
    return folder


@cache
def arc() -> Any:
    """Some of lm_eval's own tasks."""
    import lm_eval.tasks

    return lm_eval.tasks.TaskManager(include_path=f"{Path(lm_eval.tasks.__file__).parent}/arc", include_defaults=False)


def state() -> list[Any]:
    return [random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()]


@needs_lm_eval
def test_the_figures_are_those_of_lm_eval_on_the_saved_model(folder: Path):
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    names, before = [str(folder / "choice.yaml"), str(folder / "written.yaml")], state()
    argv = ["evaluate", folder / "run", "--lm-eval", ",".join(names), "--num-fewshot", 1, "--limit", 7]
    said = ok(*argv, "--json")
    assert state() == before
    told = json.loads(said.out)
    assert "own_written fixes its shots at 0" in said.err and "%" not in said.err, "notes, and no bars of progress"

    hpcfed.replay(folder / "run", str(folder / "llama-causal-lm-0"), out=folder / "tuned")
    lm = HFLM(pretrained=str(folder / "tuned"), device="cpu", batch_size=3)
    manager = TaskManager(include_defaults=False)
    right = simple_evaluate(lm, tasks=names, num_fewshot=1, limit=7, task_manager=manager, bootstrap_iters=100000)
    assert right is not None
    for name, shots, metrics in (("own_choice", 1, ("acc", "acc_norm")), ("own_written", 0, ("exact_match", "chrf"))):
        theirs, ours = right["results"][name], told[name]
        assert (ours["shots"], ours["examples"]) == (shots, 7) == (right["n-shot"][name], theirs["sample_len"])
        assert ours["metrics"] == {
            metric: {"value": theirs[f"{metric},none"], "stderr": theirs[f"{metric}_stderr,none"]} for metric in metrics
        }
    assert told["own_written"]["metrics"]["chrf"]["value"] > 0, "the model writes something"


@needs_lm_eval
def test_a_table_a_line_a_metric_and_groups_first(folder: Path):
    group = "group: own\ntask: [own_choice]\naggregate_metric_list: [{metric: acc, weight_by_size: true}]\n"
    (folder / "group").mkdir()
    (folder / "group" / "own.yaml").write_text(group)
    (folder / "group" / "choice.yaml").write_text((folder / "choice.yaml").read_text())
    lines = ok("evaluate", folder / "run", "--lm-eval", folder / "group" / "own.yaml").out.split("\n")
    cells = [line.split() for line in lines if "acc" in line]
    assert [(row[0], row[-3]) for row in cells] == [("own", "acc"), ("own_choice", "acc"), ("own_choice", "acc_norm")]
    assert cells[0][-2:] == cells[1][-2:], "a group of one task is that task"


@needs_lm_eval
@pytest.mark.parametrize(
    ("tasks", "what"),
    [
        (" , ", "name tasks of lm_eval or yaml files"),
        ("arc_easi", "lm_eval has no task of this name; did you mean arc_easy"),
        ("arc_easy", "arc_easy: its data cannot be loaded .*Hub.*; without the hub, a yaml of your own"),
        ("{}/choice.yaml,{}/choice.yaml", "is there twice"),
        ("{}/choice.yaml,{}/other.yaml", "other.yaml: own_choice is a task of another name before it"),
        ("{}/none.yaml", "none.yaml: cannot read it: No such file"),
        ("{}/lost.yaml", "lost.yaml: its data cannot be loaded .*nowhere.jsonl"),
        ("{}/broken.yaml", "broken.yaml: lm_eval cannot load it"),
        ("{}/unknown.yaml", "unknown.yaml: lm_eval cannot load it: TypeError: .*no_such_key"),
        ("{}/metric.yaml", "metric.yaml: lm_eval cannot load it|lm_eval ended with"),
        ("{}/long.yaml", "lm_eval ended with AssertionError: .*max tokens to generate"),
    ],
)
def test_a_task_that_is_not_there_is_one_error(folder: Path, monkeypatch: pytest.MonkeyPatch, tasks: str, what: str):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(module, "_shipped", arc)  # reading all that lm_eval has takes seconds
    choice, written = (folder / "choice.yaml").read_text(), (folder / "written.yaml").read_text()
    for name, text in {
        "other": choice + "\n",
        "lost": choice.replace("rows.jsonl", "nowhere.jsonl"),
        "broken": choice.replace("task:", "task"),
        "unknown": choice + "no_such_key: 1\n",
        "metric": choice.replace("acc_norm", "akk"),
        "long": written.replace("max_gen_toks: 16", "max_gen_toks: 5000"),
    }.items():
        (folder / f"{name}.yaml").write_text(text)
    with pytest.raises(ConfigError, match=what) as error:
        harness(folder / "run", tasks.replace("{}", str(folder)), quiet=True)
    assert "\n" not in str(error.value)


def test_what_does_not_go_together_is_one_error(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    own = folder / "choice.yaml"
    for argv, what in (
        (["--limit", 3], "--limit 3: it is for tasks of --lm-eval"),
        (["--num-fewshot", 3], "--num-fewshot 3: it is for tasks of --lm-eval"),
        (["--lm-eval", own, "--limit", 0], "--limit 0: must be at least 1"),
        (["--lm-eval", own, "--num-fewshot", -1], "--num-fewshot -1: must be at least 0"),
        (["--lm-eval", own, "--predictions", tmp_path / "a.jsonl"], "--predictions"),
    ):
        assert what in refused("evaluate", folder / "run", *argv)
    assert "lm_eval's tasks are for causal-lm only" in refused("evaluate", "digits", "--lm-eval", own)
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert "pip install 'hpcfed[lm-eval]'" in command("evaluate", folder / "run", "--lm-eval", own).err
