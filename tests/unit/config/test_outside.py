"""Objects of the user's own files: found, run once, and every fault said with file and line."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

import pytest

from hpcfed.config import load_recipe
from hpcfed.config.outside import is_outside, load_outside, outside_digest
from hpcfed.errors import ConfigError


def test_a_file_is_run_once_and_gives_its_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "own.py").write_text("made = []\nmade.append(1)\nOTHER = made\n")
    monkeypatch.chdir(tmp_path)
    made = load_outside("a.b", "own.py:made")
    assert made == [1] and load_outside("a.b", f"{tmp_path}/own.py:OTHER") is made
    assert outside_digest("own.py:made") == blake2b((tmp_path / "own.py").read_bytes(), digest_size=16).hexdigest()


def test_what_is_taken_for_a_file():
    assert is_outside("a/b.py:C") and is_outside("b.py") and not is_outside("feedsign") and not is_outside("a.b:c")


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("own.py", "", r"a\.b='own\.py': write FILE\.py:NAME"),
        ("own.py:", "", "write FILE.py:NAME"),
        ("gone.py:X", "", r"a\.b='gone\.py:X': cannot read gone\.py: No such file or directory; it is looked for in "),
        ("own.py:METHO", "METHOD = 1", r"own\.py has no METHO; did you mean METHOD\?"),
        ("own.py:X", "a = 1\nb = a / 0\n", r"own\.py, line 2: ZeroDivisionError: division by zero"),
        ("own.py:X", "def f():\n    raise KeyError('k')\nf()\n", r"own\.py, line 2: KeyError: 'k'"),
        ("own.py:X", "a = 1\nif\n", r"own\.py, line 2: SyntaxError: invalid syntax"),
    ],
)
def test_what_is_wrong_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, says: str):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(text)
    for _ in range(2):  # a file that failed is no module
        with pytest.raises(ConfigError, match=says):
            load_outside("a.b", name)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("algorithm.name", r"algorithm\.name='own\.py:X': a int is no hpcfed\.algorithms\.Method"),
        ("task.name", r"task\.name='own\.py:X': a int is no hpcfed\.tasks\.OwnTask"),
    ],
)
def test_an_object_of_another_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, says: str):
    from hpcfed.tasks import kind_of

    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text("X = 1\n")
    with pytest.raises(ConfigError, match=says):
        kind_of(load_recipe("digits", [f"{setting}=own.py:X"]).task, "image-classification")


def test_settings_of_ones_own_are_checked_like_all_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(Path(__file__).parents[3] / "examples")
    own = "algorithm.name=my_method.py:METHOD"
    assert load_recipe("digits", [own, "algorithm.decay=0.5"]).algorithm.model_dump()["decay"] == 0.5
    for setting, says in (
        ("algorithm.decay=2", r"algorithm\.decay=2: input should be less than or equal to 1"),
        ("algorithm.deca=0.5", r"algorithm\.deca is not a setting; did you mean algorithm\.decay\?"),
        ("algorithm.seeds=shared", r"algorithm\.seeds='shared': my_method\.py:METHOD has no such setting \(zo-fedsgd"),
        ("algorithm.update=optimizer", r"algorithm\.update='optimizer': my_method\.py:METHOD has no such setting"),
    ):
        with pytest.raises(ConfigError, match=says):
            load_recipe("digits", [own, setting])
    with pytest.raises(ConfigError, match=r"algorithm\.decay is not a setting"):
        load_recipe("digits", ["algorithm.decay=0.5"])
