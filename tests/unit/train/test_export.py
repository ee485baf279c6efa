"""What a run exports gives, in transformers' own hands, the class that hpcfed gives, for every example."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModelForCausalLM,
    AutoTokenizer,
    ViTConfig,
    ViTForImageClassification,
    pipeline,
)

from hpcfed.config import load_recipe
from hpcfed.train.export import export
from hpcfed.train.problem import build_problem
from tests.support.command import ok, refused, settings
from tests.support.digits import summary
from tests.support.small import save_tiny_folder, sentences, tiny_sst2

CASES = ["causal", "masked", "sequence", "dense", "image"]


def predicted(folder: Path, recipe: Path) -> tuple[list[str], np.ndarray]:
    """What hpcfed gives each example of the evaluated split: its class; score of the last class minus the first's."""
    problem = build_problem(load_recipe(str(recipe), [f"model.name={folder}"]))
    (examples,) = problem.task.splits.values()
    names, margins = [], []
    for i in range(len(examples)):
        batch = problem.task.collate([examples[i]])
        with torch.inference_mode():
            (scores,) = problem.task.form.scores(problem.forward(batch.inputs), batch)
        names.append(problem.task.labels[int(scores.argmax())])
        margins.append(float(scores[-1] - scores[0]))
    return names, np.array(margins)


def pictures(folder: Path) -> Path:
    """Three colours, in folders of their names."""
    rng = np.random.Generator(np.random.Philox(1))
    for split, count in (("train", 6), ("test", 5)):
        for k, name in enumerate(("blue", "green", "red")):
            for i in range(count):
                pixels = rng.integers(0, 120, (16, 16, 3), np.uint8)
                pixels[..., 2 - k] += 100
                file = folder / split / name / f"{i}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(file)
    return folder


def trained(tmp_path: Path, case: str) -> tuple[Path, dict[str, Any]]:
    """A run of two rounds."""
    if case == "image":
        model = tmp_path / "vit"
        config = ViTConfig(image_size=16, patch_size=4, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                           num_attention_heads=2, num_labels=3, initializer_range=0.5)  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            ViTForImageClassification(config).save_pretrained(model)
        data = pictures(tmp_path / "data")
        more: dict[str, Any] = {"task__name": "custom", "task__eval_splits": '["test"]'}
    else:
        kind = {"causal": "opt", "masked": "roberta"}.get(case, "roberta")
        head = "sequence-classification" if case in ("sequence", "dense") else None
        model, data, more = save_tiny_folder(tmp_path, kind, head), tiny_sst2(tmp_path), {"task__name": "sst2"}
    if case == "dense":
        more |= {"algorithm__name": "fedsgd"}
    run = tmp_path / "run"
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f'rounds = 2\neval_every = 0\n[model]\nname = "{model}"\n[task]\nname = "sst2"\ndata = "{data}"\n'
        "[clients]\ncount = 2\nbatch = 4\n[algorithm]\nlr = 1e-2\n"
    )
    ok("train", recipe, *settings(**more), "--out", run, "--quiet")
    return run, more


@pytest.mark.parametrize("case", CASES)
def test_pipelines_give_the_same_classes(tmp_path: Path, case: str):
    run, _ = trained(tmp_path, case)
    out = tmp_path / "out"
    assert summary(run)["fingerprint"] in ok("export", run, "--out", out).out
    expected, margins = predicted(out, run / "recipe.toml")
    page = (out / "README.md").read_text()
    assert summary(run)["fingerprint"] in page and str(tmp_path) not in page
    if case == "image":
        files = sorted((tmp_path / "data" / "test").rglob("*.png"))
        assert AutoImageProcessor.from_pretrained(out)
        found = [
            answers[0]["label"] for answers in pipeline("image-classification", model=str(out))(list(map(str, files)))
        ]
        assert found == expected and len(set(found)) > 1
        return
    texts = [row["sentence"] for row in sentences(32, 1)]
    if case in ("sequence", "dense"):
        found = [answer["label"] for answer in pipeline("text-classification", model=str(out))(texts)]
        assert len(set(found)) == 2
    else:
        (prompt,) = re.findall(r"```text\n(.*)\n```", page)
        words = {word: label for label, word in re.findall(r"^\| (\w+) \| (\w+) \|$", page, re.MULTILINE)[1:]}
        asked = [prompt.replace("{sentence}", text) for text in texts]
        scores = np.array((causal if case == "causal" else masked)(out, asked, list(words)))  # [examples, words]
        found = [list(words.values())[k] for k in scores.argmax(1)]
        np.testing.assert_allclose(scores[:, -1] - scores[:, 0], margins, atol=1e-4)  # tiny models say one word to all
        assert margins.std() > 1e-2
    assert found == expected
    share = np.mean(
        [e == ("positive" if r["label"] else "negative") for e, r in zip(found, sentences(32, 1), strict=True)]
    )
    assert share == pytest.approx(summary(run)["metric_after"])


def causal(folder: Path, prompts: list[str], words: list[str]) -> list[list[float]]:
    """Logits of the words that may follow."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    ids = [tokenizer(f" {word}", add_special_tokens=False)["input_ids"][0] for word in words]
    scores = []
    for prompt in prompts:
        inputs = tokenizer(prompt.removesuffix(" {verbalizer}"), return_tensors="pt")
        with torch.inference_mode():
            scores.append(model(input_ids=inputs["input_ids"]).logits[0, -1, ids].tolist())
    return scores


def masked(folder: Path, prompts: list[str], words: list[str]) -> list[list[float]]:
    """Log-probabilities of the words at the mask."""
    ask = pipeline("fill-mask", model=str(folder))
    ids, scores = ask.tokenizer.convert_tokens_to_ids([f"\u0120{word}" for word in words]), []
    for prompt in prompts:
        text = prompt.replace("{verbalizer}", ask.tokenizer.mask_token)
        said = {answer["token"]: answer["score"] for answer in ask(text, targets=[f"\u0120{word}" for word in words])}
        scores.append([float(np.log(said[i])) for i in ids])
    return scores


def test_export_of_what_is_no_run(tmp_path: Path):
    assert "not a run folder" in refused("export", tmp_path, "--out", tmp_path / "out")
    run, _ = trained(tmp_path, "dense")
    assert "not empty" in refused("export", run, "--out", run)
    base = json.loads((run / "summary.json").read_text())["model"]
    moved = tmp_path / "moved"
    (tmp_path / base).rename(moved)
    refused("export", run, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()  # empty: works
    ok("export", run, "--base", moved, "--out", tmp_path / "out")
    assert sorted(file.name for file in (tmp_path / "out").iterdir() if file.name == ".new") == []


@pytest.mark.parametrize("case", ["causal", "dense"])
def test_a_base_whose_configuration_changed_is_named(tmp_path: Path, case: str):
    run, _ = trained(tmp_path, case)
    file = Path(load_recipe(str(run / "recipe.toml")).model.name) / "config.json"
    said = [note for note in export(run, tmp_path / "same").notes if "config.json" in note]
    raw = json.loads(file.read_text())
    file.write_text(json.dumps(raw | {"activation_function": "gelu", "hidden_act": "relu"}))
    notes = export(run, tmp_path / "other").notes
    assert said == [] and any("config.json changed since the run" in note for note in notes)
    if case == "causal":
        assert "config.json changed since" in ok("orbit", "verify", run, "--base", file.parent).out


@pytest.mark.parametrize("method", ["feedsign", "fedsgd"])
def test_a_run_is_exported_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str):
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    for folder in (here, elsewhere):
        folder.mkdir()
    save_tiny_folder(here, "opt").rename(here / "model")
    tiny_sst2(here).rename(here / "data")
    monkeypatch.chdir(here)
    small = ["--set", "rounds=2", "--set", "clients.batch=4", "--set", "clients.count=2"]
    names = ["--set", "model.name=model", "--set", "task.data=data", "--set", f"algorithm.name={method}"]
    ok("train", "sst2-opt-125m", *small, *names, "--out", "run", "--quiet")
    (here / "run").rename(elsewhere / "moved")
    monkeypatch.chdir(elsewhere)
    assert export("moved", "out").rounds == 2 and (elsewhere / "out" / "config.json").is_file()
