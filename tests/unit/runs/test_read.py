"""What is read from run folders: metrics of any bytes, summaries that are whole, recipes that say the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpcfed.config.files import load_recipe, to_toml
from hpcfed.errors import RunFolderError
from hpcfed.runs.read import comparison, paths_of, read_metrics, recipe_differences
from tests.support.folders import finished, interrupted


def test_read_metrics_of_any_bytes(tmp_path):
    assert read_metrics(tmp_path) == []
    (tmp_path / "metrics.jsonl").write_bytes(
        b'{"t": 1}\n[]\n{"t": "x"}\n\xff\xfe\n' + b"[" * 100_000 + b'\n{"t": 2}\n{"t": '
    )
    assert read_metrics(tmp_path) == [{"t": 1}, {"t": 2}]


def test_comparison(tmp_path):
    finished(tmp_path / "x" / "a")
    finished(tmp_path / "y" / "a", uplink_bits_per_client_round=64, metric_before=None)
    finished(tmp_path / "b", uplink_bits_per_client_round=None, status="interrupted")
    rows = comparison([tmp_path / "x" / "a", tmp_path / "y" / "a", tmp_path / "b"])
    assert [row["run"] for row in rows] == [str(tmp_path / "x" / "a"), str(tmp_path / "y" / "a"), "b"]
    assert [row["uplink_bits"] for row in rows] == [100, 6400, None]
    assert [row["before"] for row in rows] == [0.5, None, 0.5]
    assert rows[0] | {"run": "a"} == {
        "run": "a", "algorithm": "feedsign", "model": "opt", "metric": "accuracy", "before": 0.5, "after": 0.75,
        "bits": 1, "down": None, "uplink_bits": 100, "wire_bytes": 400, "seconds": 12.5, "memory": 10**9,
        "scored_at": 100, "rounds": 100, "status": "finished",
    }  # fmt: skip


def test_comparison_errors(tmp_path):
    interrupted(tmp_path / "going")
    (tmp_path / "empty").mkdir()
    finished(tmp_path / "odd")
    fields = json.loads((tmp_path / "odd" / "summary.json").read_text())
    cases = {"gone": "no such run folder", "going": "still going on, or was killed", "empty": "not a run folder"}
    for name, message in cases.items():
        with pytest.raises(RunFolderError, match=message):
            comparison([tmp_path / name])
    for text, message in (
        (json.dumps({**fields, "seconds": "long"}), "seconds='long' is not a number"),
        (json.dumps({**fields, "model": 3}), "model=3 is not text"),
        (json.dumps({"status": "finished"}), "lacks algorithm"),
        ("{", "not valid JSON"),
        ("[]", "not a JSON object"),
    ):
        (tmp_path / "odd" / "summary.json").write_text(text)
        with pytest.raises(RunFolderError, match=message):
            comparison([tmp_path / "odd"])


def test_a_recipe_that_an_older_version_wrote_is_the_same_recipe():
    """It named the settings of all methods, at their defaults."""
    for name in ("feedsign", "fedkseed"):
        new = to_toml(load_recipe("digits", [f"algorithm.name={name}"]))
        every = 'seeds = "own"\ntally = "mean"\ntrim = 0.2\npool_size = 1024\nhistory_clip = 1000.0\nlocal_epochs = 1\n'
        kept = [line for line in new.splitlines() if not line.startswith("pool_size")]
        old = "\n".join(kept).replace("[algorithm]", f"[algorithm]\n{every}")
        assert old != new and recipe_differences(old, new) == []
        assert recipe_differences(old.replace("pool_size = 1024", "pool_size = 7"), new) != []


def test_recipe_differences_ignore_spelling():
    assert recipe_differences("a = 1e-3\n[b]\nc = [1, 2]\n", "# same\nb.c = [1,2]\na = 0.001") == []
    assert recipe_differences("a = 1", "a = 2\nb = 1", ["b"]) == ["a: 1 -> 2"]


def test_one_client_is_not_all_clients():
    old, new = ("[clients]\nper_round = " + value + "\n" for value in ("1", "1.0"))  # 1 == 1.0 in Python
    assert recipe_differences(old, new) == ["clients.per_round: 1 -> 1.0"]
    assert recipe_differences(old, old) == []


@pytest.mark.parametrize(
    ("then", "now", "name", "read"),
    [
        (True, False, "data", "then"),
        (True, True, "data", "then"),  # another folder of that name
        (False, True, "data", "note"),
        (False, False, "data", ""),
        (True, True, "/data", ""),
        (True, True, "~/data", ""),
        (True, False, "da*", "then"),
        (True, False, "facebook/opt-125m", ""),  # of the hub
    ],
)
def test_a_run_is_read_with_the_files_that_it_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: bool, now: bool, name: str, read: str
) -> None:
    for folder, there in ((tmp_path / "then", then), (tmp_path / "now", now)):
        folder.mkdir()
        if there:
            (folder / "data").mkdir()
    run = tmp_path / "moved" / "run"
    run.mkdir(parents=True)
    (run / "recipe.toml").write_text(f'[task]\ndata = "{name}"\n')
    (run / "env.json").write_text(json.dumps({"folder": str(tmp_path / "then")}))
    monkeypatch.chdir(tmp_path / "now")
    overrides, notes = paths_of(run)
    assert overrides == ([f'task.data="{tmp_path / "then" / name}"'] if read == "then" else [])
    assert len(notes) == (read == "note") and all("is no longer in" in note for note in notes)
    monkeypatch.chdir(tmp_path / "then")
    assert paths_of(run) == ([], [])
    (run / "env.json").write_text("{}")
    assert paths_of(run) == ([], [])
