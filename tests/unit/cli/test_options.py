"""--set, --quiet and RECIPE mean the same to every command that has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command import hpcfed, ok, refused

TAKE_A_RECIPE = {
    "train": ["train", "digits"],
    "evaluate": ["evaluate", "digits"],
    "submit": ["submit", "digits", "--nodes", "1", "--time", "10", "--dry-run"],
    "plan": ["plan", "digits"],
    "doctor": ["doctor", "digits"],
}


@pytest.mark.parametrize("command", TAKE_A_RECIPE)
def test_a_wrong_override_is_refused_alike(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    message = refused(*TAKE_A_RECIPE[command], "--set", "algorithm.mo=1")
    assert "algorithm.mo is not a setting; did you mean algorithm.mu?" in message
    assert "write it as section.key=value" in refused(*TAKE_A_RECIPE[command], "--set", "algorithm.mu")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", TAKE_A_RECIPE)
def test_a_mistyped_recipe_is_refused_alike(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    name, *more = TAKE_A_RECIPE[command]
    assert "'digit' is neither a file nor a shipped recipe; did you mean digits?" in refused(name, "digit", *more[1:])
    assert not list(tmp_path.iterdir())


def test_of_two_overrides_of_a_setting_the_last_counts():
    assert "after 7 rounds" in ok("plan", "digits", "--set", "rounds=5", "--set", "rounds=7").out


def test_an_option_without_its_value_is_a_usage_error():
    said = hpcfed("plan", "digits", "--set")
    assert said.code == 2 and "--set" in said.err and "Traceback" not in said.err


def test_quiet_prints_nothing(tmp_path: Path):
    few = [part for setting in ("rounds=2", "task.eval_limit=20") for part in ("--set", setting)]
    loud = ok("train", "digits", *few, "--out", tmp_path / "loud")
    assert "finished after 2 rounds" in loud.out and "loading digits-vit" in loud.err
    quiet = ok("train", "digits", *few, "--out", tmp_path / "quiet", "--quiet")
    assert (quiet.out, quiet.err) == ("", "")
