"""benchmarks/tasks.py: its lines are those of the runs, and go to their marked places. Nothing is trained here."""

from __future__ import annotations

import json

import pytest

from benchmarks import tasks as benchmark
from hpcfed.config import load_recipe
from hpcfed.tasks import TASKS


def run(after: float) -> dict:
    return {
        "metric_before": 0.5, "metric_after": after, "loss_before": 2.0, "loss_after": 1.0,
        "uplink_bits_per_client_round": 1, "rounds": 600, "seconds_per_round": 0.25,
    }  # fmt: skip


def test_tables_say_what_runs_did():
    lines = benchmark.trained_table([("copa", "feedsign", 1e-5, [run(0.6), run(0.7)])]).splitlines()
    assert lines[2] == ("| copa | feedsign | 1e-05 | 2 | 50.0 | **65.0** (60.0 to 70.0) | 2.000 | 1.000 | 600 | 0.25 |")
    assert {line.count("|") for line in lines} == {11}
    score = {"value": 0.25, "values": {"f1": 0.25, "em": 0.125}, "loss": 3.0, "examples": 8}
    assert benchmark.zero_shot_table({"squad": score}).endswith(
        "| squad | 8 | f1 25.0, em 12.5 | **25.0** | - | 3.000 |"
    )


def test_every_task_is_one_and_its_settings_make_a_recipe(tmp_path):
    assert set(benchmark.BENCHES) <= set(TASKS)
    file = benchmark.recipe(tmp_path / "model", tmp_path)
    for name in benchmark.BENCHES:
        recipe = load_recipe(str(file), benchmark.settings_of(name, tmp_path))
        assert recipe.task.name == name and recipe.clients.group == benchmark.CLIENTS


def test_the_loss_that_chooses_is_that_of_the_kept_round(tmp_path):
    lines = [{"t": t, "split": split, "loss": t / 10} for t in (0, 100) for split in ("validation", "dev")]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert benchmark.dev_loss(tmp_path, 100) == 10.0


def test_a_table_goes_to_its_marked_place_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "DOCS", tmp_path)
    page = tmp_path / "RESULTS.md"
    page.write_text("a\n<!-- trained: written by benchmarks/tasks.py -->\nold\n<!-- trained: end -->\nb\n")
    benchmark.put("trained", "new")
    assert page.read_text() == "a\n<!-- trained: written by benchmarks/tasks.py -->\nnew\n<!-- trained: end -->\nb\n"
    with pytest.raises(SystemExit, match="no place marked zero-shot"):
        benchmark.put("zero-shot", "new")
