"""Bad input as a user meets it through the command: one sentence that names it and the cure, and nothing is lost."""

from __future__ import annotations

import json
import shutil
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hpcfed.orbit import load_any
from tests.support.command import ok, refused, settings
from tests.support.folders import file_size
from tests.support.small import save_tiny_folder, sentences, tiny_sst2, write_jsonl

SHIPPED = Path(str(resources.files("hpcfed") / "recipes" / "digits"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny OPT."""
    return save_tiny_folder(tmp_path_factory.mktemp("models"), "opt")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sentences in SST-2's columns."""
    return tiny_sst2(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run of the digits."""
    out = tmp_path_factory.mktemp("runs") / "run"
    ok("train", "digits", *settings(rounds=3), "--out", out, "--quiet")
    return out


def refuses(tmp_path: Path, recipe: Any, **values: Any) -> str:
    """Training must be refused, and leave no run behind."""
    out = tmp_path / "run"
    said = refused("train", recipe, *settings(**values), "--out", out)
    assert not (out / "journal").exists() and not (out / "summary.json").exists()
    return said


def texts(tmp_path: Path, model: Path, data: Path, **values: Any) -> str:
    """The same with the SST-2 recipe on a tiny model."""
    few = {"rounds": 2, "task__train_limit": 20, "clients__batch": 4}
    return refuses(tmp_path, "sst2-opt-125m", **{"model__name": model, "task__data": data, **few, **values})


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"algorithm__mo": 1}, ["algorithm.mo is not a setting", "did you mean algorithm.mu?"]),
        ({"algoritm__mu": 1}, ["algoritm is not a setting", "did you mean algorithm?"]),
        ({"rounds": "many"}, ["rounds='many'", "integer"]),
        ({"rounds": 2.5}, ["rounds=2.5", "integer"]),
        ({"rounds": 0}, ["rounds=0", "greater than or equal to 1"]),
        ({"algorithm__lr": 0}, ["algorithm.lr=0", "greater than 0"]),
        ({"algorithm__lr": -1e-3}, ["algorithm.lr=-0.001", "greater than 0"]),
        ({"algorithm__lr": "nan"}, ["algorithm.lr=nan", "finite"]),
        ({"algorithm__mu": 0}, ["algorithm.mu=0", "greater than 0"]),
        ({"algorithm__name": "feedsing"}, ["algorithm.name='feedsing'", "did you mean feedsign?"]),
        ({"algorithm__schedule": "cosin"}, ["algorithm.schedule='cosin'", "'constant', 'linear' or 'cosine'"]),
        (
            {"algorithm__train_only": '["layers.*"]'},
            ["algorithm.train_only", "'layers.*' matches no parameter"],
        ),
        ({"model__dtype": "float64"}, ["model.dtype='float64'", "'float32', 'bfloat16' or 'float16'"]),
        ({"clients__count": 701}, ["clients.count=701", "only 700 training examples"]),
        ({"clients__per_round": 11}, ["clients.per_round=11", "only clients.count=10"]),
        ({"clients__per_round": 1.5}, ["clients.per_round=1.5", "(0, 1]"]),
        ({"clients__partition": "natural"}, ["clients.id_column"]),
        ({"clients__partition": "shards", "clients__shards_per_client": 71}, ["clients.shards_per_client=71", "70"]),
        ({"mesh__shards": 2}, ["mesh.shards=2 does not divide the 1 rank", "use one of [1]"]),
        ({"task__name": "sst"}, ["task.name='sst' is not a task", "did you mean sst"]),
        ({"task__name": "sst2"}, ["task.name='sst2' is about text", "image classifier"]),
        ({"model__name": "./nowhere"}, ["model.name='./nowhere'", "there is no such folder"]),
        ({"rounds.more": 1}, ["rounds is a setting, not a section"]),
    ],
    ids=str,
)
def test_a_wrong_setting(tmp_path: Path, values: dict[str, Any], parts: list[str]):
    said = refuses(tmp_path, "digits", **values)
    assert all(part in said for part in parts), said
    assert said.count("\n") == 0, said


def test_several_wrong_settings_are_all_said(tmp_path: Path):
    said = refuses(tmp_path, "digits", rounds=-1, algorithm__mu=0, model__nam="x")
    assert all(part in said for part in ("rounds=-1", "algorithm.mu=0", "model.nam is not a setting"))


def test_set_without_a_value(tmp_path: Path):
    said = refused("train", "digits", "--set", "algorithm.lr", "--out", tmp_path / "run")
    assert "--set 'algorithm.lr'" in said and "--set algorithm.lr=1e-4" in said


def test_recipes_that_are_none(tmp_path: Path):
    said = refuses(tmp_path, "digit")
    assert "recipe 'digit' is neither a file nor a shipped recipe; did you mean digits?" in said
    (tmp_path / "torn.toml").write_text('rounds = 3\n[model\nname = "x"\n')
    said = refuses(tmp_path, tmp_path / "torn.toml")
    assert "torn.toml: not a readable TOML file" in said and "line 2" in said
    (tmp_path / "latin.toml").write_bytes(b'model = "\xe9"\n')
    assert "not UTF-8 text" in refuses(tmp_path, tmp_path / "latin.toml")
    (tmp_path / "short.toml").write_text("rounds = 3\n")
    said = refuses(tmp_path, tmp_path / "short.toml")
    assert all(f"{name} is missing" in said for name in ("model", "task", "algorithm"))
    assert "neither a file nor a shipped recipe" in refuses(tmp_path, tmp_path)


def test_a_run_folder_that_cannot_be(tmp_path: Path):
    file = tmp_path / "file"
    file.write_text("mine")
    for out in (file, file / "below"):
        assert "is a file or lies below one" in refused("train", "digits", "--out", out)
    assert file.read_text() == "mine"
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "recipe.toml").write_text("mine")
    assert "choose another --out" in refused("train", "digits", "--out", foreign)
    assert (foreign / "recipe.toml").read_text() == "mine"


# --- data ------------------------------------------------------------------------------------------------------------


def test_data_that_are_not_there(tmp_path: Path, model: Path, data: Path):
    said = texts(tmp_path, model, data, task__text='["sentense"]')
    assert "no column 'sentense'; did you mean sentence?" in said and "task.text" in said
    said = texts(tmp_path, model, data, task__label="lable")
    assert "no column 'lable'; did you mean label?" in said and "task.label" in said
    said = texts(tmp_path, model, data, task__eval_splits='["valid"]')
    assert "has no split 'valid'; did you mean validation?" in said and "task.eval_splits" in said
    assert "nothing-here" in texts(tmp_path, model, tmp_path / "nothing-here")
    said = texts(tmp_path, model, data, clients__partition="natural", clients__id_column="owner")
    assert "no column 'owner'" in said and "clients.id_column" in said


def test_malformed_data(tmp_path: Path, model: Path, data: Path):
    bad = tmp_path / "bad"
    shutil.copytree(data, bad)
    train = bad / "train.jsonl"
    lines = train.read_text().splitlines()

    train.write_text("")
    assert "train.jsonl is empty" in texts(tmp_path, model, bad)
    train.write_text("\n".join([*lines[:4], lines[4][:-5], *lines[5:]]))
    said = texts(tmp_path, model, bad)
    assert "train.jsonl, line 5: not a JSON object" in said
    rows = sentences(10, 0)
    rows[6]["label"] = 2
    write_jsonl(train, rows)
    said = texts(tmp_path, model, bad)
    assert "train.jsonl, row 7: label 2 is out of range; must be 0 to 1" in said
    rows[6]["label"] = None
    write_jsonl(train, rows)
    assert "row 7: the label is missing" in texts(tmp_path, model, bad)
    rows[6] |= {"label": 1, "sentence": None}
    write_jsonl(train, rows)
    assert "row 7: column 'sentence' is missing" in texts(tmp_path, model, bad)


# --- models ----------------------------------------------------------------------------------------------------------


def test_a_verbaliser_of_two_tokens_for_a_masked_model(tmp_path: Path, data: Path):
    masked = save_tiny_folder(tmp_path, "roberta")
    said = texts(tmp_path, masked, data, task__verbalizers='["terrible", "extraordinary"]')
    assert "extraordinary" in said and "token" in said
    said = texts(tmp_path, masked, data, task__verbalizers='["terrible", "good", "great"]')
    assert "task.verbalizers" in said and "2 classes" in said


def test_a_model_without_a_pad_token(tmp_path: Path, data: Path):
    padless = save_tiny_folder(tmp_path, "llama", pad=False)
    said = texts(tmp_path, padless, data)
    assert "no pad token" in said and "--set model.pad_token='</s>'" in said
    cured = settings(rounds=1, model__name=padless, task__data=data, task__train_limit=20, model__pad_token="</s>")
    ok("train", "sst2-opt-125m", *cured, "--out", tmp_path / "cured", "--quiet")
    assert "model.pad_token='<none>' is no token" in texts(tmp_path, padless, data, model__pad_token="<none>")


def test_a_folder_that_is_no_model(tmp_path: Path, model: Path, data: Path):
    (tmp_path / "empty").mkdir()
    assert "has no config.json" in texts(tmp_path, tmp_path / "empty", data)
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "its weights cannot be loaded" in texts(tmp_path, broken, data)
    weights.unlink()
    (broken / "pytorch_model.bin").write_bytes(b"")
    assert "only pytorch_model.bin" in texts(tmp_path, broken, data)


# --- a run that goes wrong -------------------------------------------------------------------------------------------


def test_a_step_that_is_far_too_large(tmp_path: Path):
    out = tmp_path / "run"
    said = refused("train", "digits", *settings(rounds=20, algorithm__lr=1e30), "--out", out)
    assert "all 10 clients abstained, since their loss is no longer finite" in said
    assert "a smaller algorithm.lr (now 1e+30)" in said
    assert 1 <= load_any(out).rounds < 20
    for line in (out / "metrics.jsonl").read_text().splitlines():
        assert "NaN" not in line and isinstance(json.loads(line), dict)


def test_a_model_with_nan_weights(tmp_path: Path):
    damaged = tmp_path / "damaged"
    shutil.copytree(SHIPPED, damaged)
    weights = load_file(damaged / "model.safetensors")
    next(w for w in weights.values() if w.dim() > 1).view(-1)[0] = torch.nan
    save_file(weights, damaged / "model.safetensors", metadata={"format": "pt"})
    said = refused("train", "digits", *settings(rounds=3, model__name=damaged), "--out", tmp_path / "run")
    assert "not finite on the first training examples" in said and "weights are damaged" in said


@pytest.mark.parametrize(("log_every", "file"), [(1000, "journal"), (1, "metrics.jsonl")])
def test_a_disk_that_fills_up(tmp_path: Path, finished: Path, log_every: int, file: str):
    rounds, whole = 80, tmp_path / "whole"
    more = settings(rounds=rounds, log_every=log_every)
    ok("train", "digits", *more, "--out", whole, "--quiet")
    size = len((finished / "journal").read_bytes())  # header and 3 rounds
    out = tmp_path / "run"
    with file_size(size + 40 * 13 + 5):  # the 44th round is cut off in the middle
        said = refused("train", "digits", *more, "--out", out)
    assert f"{out / file}: cannot write" in said and "space" in said and "--resume" in said
    assert load_any(out).rounds == 43 if file == "journal" else 0 < load_any(out).rounds < 43
    ok("train", "digits", *more, "--out", out, "--resume", "--quiet")
    assert (out / "orbit.safetensors").read_bytes() == (whole / "orbit.safetensors").read_bytes()


# --- orbits ----------------------------------------------------------------------------------------------------------


def orbit_refused(file: Path) -> str:
    """All readers of an orbit say the same thing about a bad one."""
    said = {refused("orbit", command, file) for command in ("show", "verify")}
    out = file.parent / "out"
    said.add(refused("orbit", "replay", file, "--base", "digits-vit", "--out", out))
    assert not out.exists() and len(said) == 1
    return said.pop()


def test_damaged_orbits(tmp_path: Path, finished: Path):
    for name in ("orbit.safetensors", "journal"):
        raw = (finished / name).read_bytes()
        bad = tmp_path / name
        flips = range(0, len(raw), 97) if name != "journal" else range(0, len(raw) - 3 * 13, 97)
        for at in flips:
            bad.write_bytes(raw[:at] + bytes([raw[at] ^ 4]) + raw[at + 1 :])
            assert str(bad) in orbit_refused(bad)
    sealed = (finished / "orbit.safetensors").read_bytes()
    for length in (0, 1, 7, 8, 100, len(sealed) - 1):
        (tmp_path / "short").write_bytes(sealed[:length])
        assert str(tmp_path / "short") in orbit_refused(tmp_path / "short")


def test_files_that_are_no_orbit(tmp_path: Path):
    assert "neither orbit.safetensors nor journal" in orbit_refused(tmp_path)
    assert "cannot read" in orbit_refused(tmp_path / "nowhere")
    assert "a safetensors file, but not an orbit" in orbit_refused(SHIPPED / "model.safetensors")


def test_a_damaged_journal_is_not_gone_on_with(tmp_path: Path, finished: Path):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    (out / "summary.json").unlink()
    (out / "orbit.safetensors").unlink()
    raw = (out / "journal").read_bytes()
    at = len(raw) - 2 * 13 - 6  # in the first round, with two intact ones after it
    (out / "journal").write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
    said = refused("train", "digits", *settings(rounds=3), "--out", out, "--resume")
    assert "this is no torn tail" in said
    assert (out / "journal").read_bytes() == raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]


def test_a_journal_begun_from_another_base_model(tmp_path: Path):
    base, out = tmp_path / "base", tmp_path / "run"
    shutil.copytree(SHIPPED, base)
    more = settings(rounds=3, model__name=base)
    ok("train", "digits", *more, "--out", out, "--quiet")
    (out / "summary.json").unlink()
    weights = load_file(base / "model.safetensors")
    weights[min(weights)].view(-1)[0] += 1
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    said = refused("train", "digits", *more, "--out", out, "--resume")
    assert "another base model" in said and "base_fingerprint" in said
