"""What must not change while a run goes on: evaluation data, tokenizer, config. Each change of a kind ends a resume."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hpcfed
from hpcfed.config import Recipe, load_recipe
from hpcfed.errors import HpcfedError
from tests.support.small import save_tiny_folder, tiny_sst2


class Stop(Exception):
    """In the middle of a run."""


def stop(line: dict[str, Any]) -> None:
    if line["t"] == 1:
        raise Stop


def recipe(folder: Path) -> Recipe:
    settings = ["rounds=2", "clients.batch=4", f"model.name={folder}/model", f"task.data={folder}/data"]
    return load_recipe("sst2-opt-125m", [*settings, "clients.count=2", "algorithm.lr=1e-6"])


def edited(file: str, edit: Callable[[str], str]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / file
        new = edit(path.read_text())
        assert new != path.read_text()
        path.write_text(new)

    return change


def without_merges(text: str) -> str:
    """tokenizer.json of one that cuts every word into letters."""
    fields = json.loads(text)
    fields["model"]["merges"] = []
    return json.dumps(fields)


def reset(field: str, value: object) -> Callable[[str], str]:
    return lambda text: json.dumps(json.loads(text) | {field: value})


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped after its first round, with its model and data."""
    folder = tmp_path_factory.mktemp("begun")
    save_tiny_folder(folder, "opt").rename(folder / "model")
    tiny_sst2(folder, train=16, validation=8, test=8).rename(folder / "data")
    with pytest.raises(Stop):
        hpcfed.train(recipe(folder), folder / "run", quiet=True, on_round=stop)
    return folder


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda folder: None, None),
        (edited("data/validation.jsonl", lambda text: text.replace("film", "cast", 1)), "evaluation split"),
        (edited("data/validation.jsonl", lambda text: text.partition("\n")[2]), "evaluation split"),
        (edited("data/validation.jsonl", lambda text: text.replace('"label": 1', '"label": 0', 1)), "evaluation split"),
        (edited("data/train.jsonl", lambda text: text.replace("film", "cast", 1)), "the training data"),
        (edited("model/tokenizer.json", without_merges), ""),
        (edited("model/config.json", reset("activation_function", "gelu")), "the model's config.json"),
        (edited("model/config.json", reset("transformers_version", "0")), None),
    ],
)
def test_a_run_goes_on_with_what_it_began_with_only(
    begun: Path, tmp_path: Path, change: Callable[[Path], None], named: str | None
):
    folder = tmp_path / "copy"
    shutil.copytree(begun, folder)
    said = (folder / "run" / "recipe.toml").read_text().replace(str(begun), str(folder))
    (folder / "run" / "recipe.toml").write_text(said)
    change(folder)
    before = {file.name: file.read_bytes() for file in (folder / "run").iterdir()}
    if named is None:
        done = hpcfed.train(recipe(folder), folder / "run", quiet=True, resume=True)
        assert done.summary["status"] == "finished"
        return
    with pytest.raises(HpcfedError, match=f"{named}.* changed since the run began"):
        hpcfed.train(recipe(folder), folder / "run", quiet=True, resume=True)
    assert {file.name: file.read_bytes() for file in (folder / "run").iterdir()} == before


def test_an_evaluation_of_a_run_says_what_changed(begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "copy"
    shutil.copytree(begun, folder)
    (folder / "run" / "recipe.toml").write_text(
        (folder / "run" / "recipe.toml").read_text().replace(str(begun), str(folder))
    )
    assert hpcfed.evaluate(folder / "run") and "changed" not in capsys.readouterr().err
    edited("data/validation.jsonl", lambda text: text.partition("\n")[2])(folder)
    assert hpcfed.evaluate(folder / "run")
    assert capsys.readouterr().err.count("evaluation split 'validation' changed since the run in") == 1


def test_a_run_without_digests_goes_on_and_says_so(begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    shutil.copytree(begun / "run", tmp_path / "run")
    file = tmp_path / "run" / "partition.json"
    known = json.loads(file.read_text())
    del known["digests"]
    file.write_text(json.dumps(known))
    hpcfed.train(recipe(begun), tmp_path / "run", resume=True)
    assert capsys.readouterr().err.count("nobody knows whether they have changed") == 1
