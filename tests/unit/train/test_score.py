"""hpcfed.evaluate as a user calls it: of a recipe, a run, an orbit and a model folder, to the last bit of the loss."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ViTForImageClassification, pipeline

import hpcfed
from hpcfed.config import ModelConfig, load_recipe
from hpcfed.errors import ConfigError, HpcfedError
from hpcfed.train.problem import build_problem
from tests.support.digits import SHIPPED, TINY, changed_base, lines, tiny
from tests.support.small import named, save_tiny_folder, sentences, tiny_config, write_jsonl

PIXELS = {
    "image_processor_type": "ViTImageProcessor",
    "size": {"height": 8, "width": 8},
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> hpcfed.Result:
    """A finished run of six rounds."""
    return hpcfed.train(tiny(), tmp_path_factory.mktemp("runs") / "run", quiet=True)


def test_scores_are_those_that_the_run_found(run: hpcfed.Result):
    told = run.summary
    for what, when in ((tiny(), "before"), (run.folder, "after"), (str(run.folder), "after")):
        score = hpcfed.evaluate(what)["test"]
        assert (score.value, score.loss, score.metric) == (told[f"metric_{when}"], told[f"loss_{when}"], "accuracy")
        assert score.examples == 40
    assert told["loss_before"] != told["loss_after"]


def test_a_recipe_with_an_orbit_is_the_model_that_it_rebuilds(run: hpcfed.Result):
    after = hpcfed.evaluate(run.folder)
    assert run.orbit is not None
    for orbit in (run.orbit, run.folder / "journal", run.folder):
        assert hpcfed.evaluate("digits", orbit=orbit, overrides=TINY) == after
    # The orbit's own method rebuilds it, whatever the recipe's is.
    assert hpcfed.evaluate(tiny("algorithm.name=mezo"), orbit=run.orbit) == after
    assert hpcfed.evaluate(run.folder, overrides=["task.eval_limit=10"])["test"].examples == 10


def test_predictions_go_to_a_new_file(run: hpcfed.Result, tmp_path: Path):
    file = tmp_path / "answers.jsonl"
    score = hpcfed.evaluate(run.folder, predictions=file)["test"]
    told = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    assert [line["index"] for line in told] == list(range(40)) and {line["split"] for line in told} == {"test"}
    assert all(line["right"] == (line["prediction"] in line["references"]) for line in told)
    assert sum(line["right"] for line in told) == round(40 * score.value)
    assert np.mean([line["loss"] for line in told]) == pytest.approx(score.loss)
    assert told[0]["metrics"] == {"accuracy": float(told[0]["right"])}
    before = file.read_bytes()
    for wrong, what in ((file, "it is there already"), (tmp_path / "no" / "a.jsonl", "there is no folder .*no")):
        with pytest.raises(ConfigError, match=f"--predictions .*{what}"):
            hpcfed.evaluate(run.folder, predictions=wrong)
    assert file.read_bytes() == before and [path.name for path in tmp_path.iterdir()] == ["answers.jsonl"]


def test_a_run_that_was_stopped_is_evaluated_where_it_stands(tmp_path: Path):
    def stop(line: dict) -> None:
        if line["t"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hpcfed.train(tiny("eval_every=2"), tmp_path / "run", quiet=True, on_round=stop)
    whole = hpcfed.train(tiny("eval_every=1"), tmp_path / "whole", quiet=True)
    at = {line["t"]: line["loss"] for line in lines(whole.folder) if "split" in line}
    assert hpcfed.evaluate(tmp_path / "run")["test"].loss == at[3]


def test_a_model_folder_wants_a_recipe(run: hpcfed.Result, tmp_path: Path):
    before = hpcfed.evaluate(tiny())
    assert hpcfed.evaluate(SHIPPED, recipe="digits", overrides=TINY) == before
    hpcfed.replay(run.folder, "digits-vit", out=tmp_path / "tuned")
    assert hpcfed.evaluate(tmp_path / "tuned", recipe="digits", overrides=TINY) == hpcfed.evaluate(run.folder)
    with pytest.raises(ConfigError, match="is a model folder; give the task by a recipe"):
        hpcfed.evaluate(SHIPPED)
    with pytest.raises(HpcfedError, match="starts from other weights"):
        hpcfed.evaluate(changed_base(tmp_path / "changed"), recipe="digits", overrides=TINY, orbit=run.folder)


def test_a_dense_run_is_evaluated_from_its_weights(tmp_path: Path):
    result = hpcfed.train(tiny("algorithm.name=fedsgd"), tmp_path / "run", quiet=True)
    score = hpcfed.evaluate(result.folder)["test"]
    assert (score.value, score.loss) == (result.summary["metric_after"], result.summary["loss_after"])


def test_what_is_nothing_at_all_is_one_error():
    with pytest.raises(HpcfedError, match="'digit' is neither a file nor a shipped recipe"):
        hpcfed.evaluate("digit")


@pytest.mark.parametrize("kind", ["roberta", "vit"])
def test_a_saved_classifier_says_in_transformers_what_it_says_here(tmp_path: Path, kind: str):
    """The checkpoint numbers its classes in another order than the data; both call the right class the same."""
    names = ["ship", "cat", "dog"]
    if kind == "roberta":
        base = save_tiny_folder(tmp_path, kind, "sequence-classification", labels=3)
        rows = [{"text": row["sentence"], "label": sorted(names)[i % 3]} for i, row in enumerate(sentences(12, 5))]
        data, settings = tmp_path / "data", ["task.text=['text']"]
        for split in ("train", "validation"):
            write_jsonl(data / f"{split}.jsonl", rows)
        inputs, truth = [row["text"] for row in rows], [row["label"] for row in rows]
    else:
        base, data, settings = tmp_path / "model", tmp_path / "data", []
        config = tiny_config("vit", labels=3)
        config.num_channels = 3  # transformers' pipeline makes every image RGB
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            ViTForImageClassification(config).save_pretrained(base)
        (base / "preprocessor_config.json").write_text(json.dumps(PIXELS))
        pixels = np.random.Generator(np.random.Philox(0)).integers(0, 256, (12, 8, 8, 3), np.uint8)
        inputs, truth = [Image.fromarray(p) for p in pixels], [sorted(names)[i % 3] for i in range(12)]
        for split in ("train", "validation"):
            for i, (image, name) in enumerate(zip(inputs, truth, strict=True)):
                (data / split / name).mkdir(parents=True, exist_ok=True)
                image.save(data / split / name / f"{i:02}.png")
    named(base, dict(enumerate(name.upper() for name in names)))
    settings += ["task.name=custom", f"task.data={data}", 'task.eval_splits=["validation"]', "rounds=2"]
    recipe = load_recipe("digits", [f"model.name={base}", "clients.count=3", "clients.partition=iid", *settings])
    run = hpcfed.train(recipe, tmp_path / "run", quiet=True)
    tuned = tmp_path / "tuned"
    hpcfed.replay(run.folder, str(base), out=tuned)
    task, what = ("text-classification", {}) if kind == "roberta" else ("image-classification", {"top_k": 1})
    said = pipeline(task, model=str(tuned), **what)(inputs)
    right = [(one if isinstance(one, dict) else one[0])["label"] for one in said]
    problem = build_problem(recipe.model_copy(update={"model": ModelConfig(name=str(tuned))}))
    assert problem.task.labels == ["SHIP", "CAT", "DOG"]
    examples = problem.task.splits["validation"]
    batch = problem.task.collate([examples[i] for i in range(12)])
    with torch.inference_mode():
        logits = problem.forward(batch.inputs)
    called = [problem.task.labels[i] for i in logits.argmax(-1).tolist()]
    if kind == "roberta":
        assert called == right  # of images the split is sorted by class
    here = sorted(zip((problem.task.labels[e["label"]] for e in (examples[i] for i in range(12))), called, strict=True))
    assert here == sorted(zip((name.upper() for name in truth), right, strict=True))
    share = sum(a.upper() == b for a, b in zip(truth, right, strict=True)) / 12
    assert hpcfed.evaluate(run.folder)["validation"].value == share
