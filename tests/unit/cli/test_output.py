"""What becomes of a command whose output cannot be written, or not in the letters of its terminal; real processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.folders import finished
from tests.support.harness import environment

HPCFED = f"{sys.executable} -m hpcfed"


def shell(line: str, folder: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    """`line` in bash, where HPCFED is the command."""
    env = environment(extra)
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line.replace("HPCFED", HPCFED)],
        cwd=folder, env=env, capture_output=True, text=True, encoding="utf-8", errors="replace", timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("line", "code", "err"),
    [
        ("HPCFED version >/dev/full", 1, "hpcfed: stdout: No space left on device\n"),
        ("HPCFED compare run >/dev/full", 1, "hpcfed: stdout: No space left on device\n"),
        ("HPCFED --help >/dev/full", 1, "hpcfed: stdout: No space left on device\n"),
        ("HPCFED compare run >/dev/full 2>&-", 1, ""),
        ("HPCFED compare run >&-", 0, ""),
        ("HPCFED compare run >&- 2>&- <&-", 0, ""),
        ("HPCFED compare run | true", 0, ""),
        ("HPCFED compare run 2>&1 | head -1", 0, ""),
        ("HPCFED --help | head -1", 0, ""),
        ("HPCFED compare nowhere 2>/dev/full", 1, ""),
        ("HPCFED compare nowhere >/dev/full", 1, "hpcfed: nowhere: no such run folder\n"),
    ],
)
def test_an_output_that_cannot_be_written(tmp_path: Path, line: str, code: int, err: str) -> None:
    finished(tmp_path / "run")
    done = shell(line, tmp_path)
    assert (done.returncode, done.stderr) == (code, err), done


@pytest.mark.parametrize(
    "extra",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "C"},
        {"PYTHONIOENCODING": "latin-1"},
        {"TERM": "dumb", "NO_COLOR": "1", "COLUMNS": "3"},
        {"PYTHONOPTIMIZE": "1", "PYTHONHASHSEED": "7", "TZ": "Nowhere/Place"},
        {"LANG": "", "LC_ALL": "", "HOME": ""},
    ],
    ids=str,
)
def test_any_letters_in_any_locale(tmp_path: Path, extra: dict[str, str]) -> None:
    finished(tmp_path / "läufe-数", model="modèle-数")
    done = shell("HPCFED compare l*", tmp_path, **extra)
    assert done.returncode == 0 and "Traceback" not in done.stderr and done.stderr == "", done
    assert "feedsign" in done.stdout and ("mod" in done.stdout)


@pytest.mark.long
def test_a_run_is_saved_whatever_becomes_of_its_output(tmp_path: Path) -> None:
    line = "HPCFED train digits --set rounds=2 --out {} --force"
    done = shell(line.format("a") + " >/dev/full", tmp_path)
    assert done.returncode == 0 and "stdout: No space left on device; the run is saved in a\n" in done.stderr
    done = shell(line.format("b") + " 2>&1 | head -1", tmp_path)
    assert done.returncode == 0 and done.stdout.count("\n") == 1
    for name in "ab":
        assert json.loads((tmp_path / name / "summary.json").read_text())["status"] == "finished"
        assert (tmp_path / name / "journal").read_bytes() == (tmp_path / "a" / "journal").read_bytes()


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        (r"$'b\xff'", {}),
        (r"$'\xe9t\xe9/mod\xe8le'", {}),
        ("größe", {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
        ("数", {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
    ],
)
def test_a_name_that_is_no_text_is_refused(tmp_path: Path, name: str, extra: dict[str, str]) -> None:
    done = shell(f"HPCFED plan digits --set model.name={name}", tmp_path, **extra)
    assert done.returncode == 1 and done.stderr.startswith("hpcfed: --set 'model.name="), done
    assert "no recipe.toml can hold them; set LC_ALL=C.UTF-8" in done.stderr and done.stderr.count("\n") == 1
