"""A scaling study is told by what its runs say about themselves, and its figures follow from theirs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from hpcfed.clock import SHARES
from hpcfed.config import load_recipe, to_toml
from hpcfed.runs.plots import draw
from hpcfed.runs.scaling import read_study, study_figure
from tests.support.runs import is_picture, made_up_summary


def run(path: Path, rows: int, clients: int, seconds: float, *more: str, shards: int = 1, timed: bool = True) -> Path:
    """A finished run with so many seconds a round, of which 60 % went into forward passes and 10 % into the others."""
    path.mkdir(parents=True)
    (path / "recipe.toml").write_text(to_toml(load_recipe("digits", [f"clients.count={clients}", *more])))
    found = made_up_summary(rows=rows, shards=shards, clients=clients, seconds_per_round=seconds)
    (path / "summary.json").write_text(json.dumps(found))
    line = {"t": 40, "loss": 1.0, "uplink_bits_per_client": 1}
    split = dict(zip(SHARES, (np.array([6, 1, 1, 1, 1]) * seconds / 10).tolist(), strict=True))
    told = {"t": 40, "timed": 40, "rows": rows, "slowest_row": 0, "time": split}
    lines = [line, told] if timed else [line]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_strong_and_weak_by_what_the_runs_say(tmp_path: Path):
    runs = [run(tmp_path / f"{k}", k, 8, 0.8 / k) for k in (4, 1, 2)]
    runs += [run(tmp_path / f"x{k}", k, 8 * k, 0.8 * k**0.5) for k in (2, 4)]
    study = read_study(runs)
    assert study and list(study) == ["strong", "weak"]
    assert study["strong"].ranks == study["weak"].ranks == [1, 2, 4]  # one rank is the first point of both
    np.testing.assert_allclose(study["strong"].rates, [1.25, 2.5, 5])
    np.testing.assert_allclose(study["strong"].efficiency, 1)
    np.testing.assert_allclose(study["weak"].efficiency, [1, 0.5**0.5, 0.5])
    np.testing.assert_allclose(study["strong"].splits[1], [0.24, 0.04, 0.04, 0.04, 0.04])
    draw(runs, tmp_path / "study.png")
    assert is_picture(tmp_path / "study.png")
    titles = [panel.get_title() for panel in study_figure(Figure, study).axes]
    assert titles[:2] == ["Rounds a second", "Efficiency"] and "strong scaling" in titles[2] and "weak" in titles[3]


def test_shards_are_ranks_and_repeated_runs_are_averaged(tmp_path: Path):
    runs = [run(tmp_path / "a", 1, 4, 0.5, shards=2), run(tmp_path / "b", 2, 4, 0.5, shards=2)]
    runs.append(run(tmp_path / "c", 2, 4, 0.25, "rounds=9", shards=2, timed=False))  # a shorter repetition
    study = read_study(runs)
    assert study and list(study) == ["strong"] and study["strong"].ranks == [2, 4]
    assert study["strong"].rates == [2, 3] and study["strong"].efficiency == [1, 0.75]
    assert study["strong"].splits[1][0] == pytest.approx(0.3)  # of the one that says it


def test_a_fixed_number_of_voters_counts_and_not_the_clients(tmp_path: Path):
    runs = [run(tmp_path / f"{k}", k, 100 * k, 1.0, "clients.per_round=10") for k in (1, 2)]
    study = read_study(runs)
    assert study and list(study) == ["strong"]


def test_runs_that_are_no_study(tmp_path: Path):
    one, two = run(tmp_path / "1", 1, 8, 1.0), run(tmp_path / "2", 2, 8, 0.5)
    assert read_study([one, two])
    others = {
        "the same ranks": [one, run(tmp_path / "1b", 1, 8, 1.0)],
        "another step size": [one, run(tmp_path / "lr", 2, 8, 0.5, "algorithm.lr=1")],
        "neither strong nor weak": [one, two, run(tmp_path / "7", 2, 7, 0.5)],
    }
    for why, runs in others.items():
        assert read_study(runs) is None, why
    (two / "summary.json").write_text(json.dumps(made_up_summary(rows=2, shards=1, seconds_per_round=None)))
    assert read_study([one, two]) is None
    (two / "summary.json").unlink()  # still going on
    assert read_study([one, two]) is None
    draw([one, two], tmp_path / "curves.png")
    assert is_picture(tmp_path / "curves.png")


def test_a_study_without_times_or_with_one_line(tmp_path: Path):
    runs = [run(tmp_path / f"{k}", k, 8, 1.0, timed=False) for k in (1, 2)]
    study = read_study(runs)
    assert study
    panels = study_figure(Figure, study).axes
    assert [text.get_text() for text in panels[2].texts] == ["no times in these runs"]
    assert [text.get_text() for text in panels[3].texts] == ["no weak scaling in these runs"]
    draw(runs, tmp_path / "study.png")
    assert is_picture(tmp_path / "study.png")
