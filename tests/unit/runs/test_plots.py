"""hpcfed plot: a picture of whatever a run left behind, and errors that say what is wrong."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from hpcfed.clients import partition, partition_report
from hpcfed.clients.partition import Deal
from hpcfed.errors import ConfigError, RunFolderError
from hpcfed.runs.plots import _figure, draw, read_history, smooth
from tests.support.runs import is_picture


def run_folder(
    path: Path,
    rounds: int = 40,
    every: int = 1,
    evaluated: bool = True,
    bits: int = 1,
    votes: bool = True,
    private: bool = False,
) -> Path:
    path.mkdir(parents=True)
    lines = []
    for t in range(rounds + 1):
        if evaluated and t % 10 == 0:
            lines += [
                {"t": t, "split": split, "metric": "accuracy", "value": 0.5 + t / 100, "loss": 1 / (1 + t)}
                for split in ("validation", "test")
            ]
        if t and t % every == 0:
            loss = None if t == 7 or private else 2 / t  # a loss that is not finite is logged as null
            agreement, sign_error = (0.6, None if t < 3 else 0.4) if votes else (None, None)
            lines.append({"t": t, "loss": loss, "agreement": agreement, "sign_error": sign_error})
            lines[-1]["uplink_bits_per_client"] = bits
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def add_partition(path: Path, clients: int, classes: int) -> Path:
    labels = np.arange(4 * clients + classes) % classes
    parts = partition("quantity", Deal(labels, clients, beta=0.3))
    report = partition_report(parts, labels, [f"class {c} with a long name" for c in range(classes)])
    (path / "partition.json").write_text(json.dumps(report.data()))
    return path


def test_one_run(tmp_path):
    out = tmp_path / "deep" / "folder" / "a.png"
    draw([add_partition(run_folder(tmp_path / "a"), 10, 10)], out)
    assert is_picture(out)


def test_many_runs_with_far_apart_bits_and_many_partitions(tmp_path):
    sizes = [(10, 2), (3, 30), (2000, 3), (5, 5), (6, 6), (7, 7)]
    runs = [
        add_partition(run_folder(tmp_path / f"{k}" / "run", bits=10 ** (2 * k)), *size) for k, size in enumerate(sizes)
    ]
    runs += [run_folder(tmp_path / f"{k}" / "run", rounds=12) for k in (7, 8, 9)]
    draw([*runs, runs[0]], tmp_path / "all.PNG")
    assert is_picture(tmp_path / "all.PNG")


@pytest.mark.parametrize("rounds", [0, 1, 40])
@pytest.mark.parametrize("evaluated", [False, True])
def test_short_and_unevaluated_runs(tmp_path, rounds, evaluated):
    path = run_folder(tmp_path / "a", rounds=rounds, evaluated=evaluated)
    if rounds or evaluated:
        draw([path], tmp_path / "a.png")
        assert is_picture(tmp_path / "a.png")
    else:
        with pytest.raises(RunFolderError, match="without a logged round"):
            draw([path], tmp_path / "a.png")


def test_torn_last_line_is_left_out(tmp_path):
    path = run_folder(tmp_path / "a", rounds=5)
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"t": 6, "lo')
    assert read_history(path, "a").rounds.tolist() == [1, 2, 3, 4, 5]


def test_bits_count_the_rounds_that_were_not_logged(tmp_path):
    history = read_history(run_folder(tmp_path / "a", rounds=45, every=4, bits=3), "a")
    assert history.rounds[-1] == 44 and history.bits[-1] == 3 * 44
    assert history.bits_at(np.array([0.0, 10, 40])).tolist() == [0, 30, 120]


def drawn(*runs: Path) -> dict[str, Any]:
    """The panels of the picture by the first words of their title."""
    figure = _figure(Figure, [read_history(run, run.name) for run in runs])
    return {panel.get_title().partition(" ")[0] + str(k): panel for k, panel in enumerate(figure.axes)}


def said(panel: Any) -> list[str]:
    return [text.get_text() for text in panel.texts]


def test_agreement_above_and_sign_error_below(tmp_path):
    runs = [run_folder(tmp_path / name) for name in "ab"]
    history = read_history(runs[0], "a")
    assert np.isnan(history.sign_error[1]) and history.sign_error[2] == 0.4
    panel = drawn(*runs, run_folder(tmp_path / "c", votes=False))["Votes4"]
    curves = [line for line in panel.lines if len(line.get_xdata()) == 40]
    assert len(curves) == 6 and not said(panel)  # thin, thick and dotted of two runs; the third has none
    dotted = [line for line in curves if line.get_linestyle() == ":"]
    assert [line.get_color() for line in dotted] == [curves[0].get_color(), curves[3].get_color()]
    assert {float(line.get_ydata()[9]) for line in dotted} == {0.4} and panel.get_ylim() == (-0.02, 1.02)


def test_methods_without_votes_and_runs_without_losses(tmp_path):
    private = run_folder(tmp_path / "private", votes=False, private=True, evaluated=False)
    panels = drawn(private)
    assert said(panels["Votes4"]) == ["no votes in these runs"] and said(panels["Loss0"]) == ["no losses in these runs"]
    old = run_folder(tmp_path / "old")  # written before sign_error was
    lines = [json.loads(line) for line in (old / "metrics.jsonl").read_text().splitlines()]
    text = "".join(json.dumps({k: v for k, v in line.items() if k != "sign_error"}) + "\n" for line in lines)
    (old / "metrics.jsonl").write_text(text)
    panels = drawn(private, old)
    assert not said(panels["Votes4"]) and not said(panels["Loss0"])
    for runs in ([private], [private, old]):
        draw(runs, tmp_path / "a.png")
        assert is_picture(tmp_path / "a.png")


def test_unknown_losses_are_unknown_not_zero(tmp_path):
    history = read_history(run_folder(tmp_path / "a"), "a")
    assert np.isnan(history.loss[6]) and np.isfinite(history.loss[7])
    assert history.scores["test"].shape == (5, 3) and list(history.scores) == ["validation", "test"]


@given(st.lists(st.floats(-10, 10) | st.just(float("nan")), min_size=1, max_size=30), st.integers(1, 40))
def test_smooth_is_the_mean_of_what_is_known_around(values, window):
    found = smooth(np.array(values), window)
    for i, x in enumerate(found):
        around = np.array(values[max(0, i - (window - 1) // 2) : i + window // 2 + 1])
        known = around[np.isfinite(around)]
        assert np.isnan(x) if not len(known) else np.isclose(x, known.mean(), atol=1e-9)


def test_folders_that_are_no_run(tmp_path):
    with pytest.raises(RunFolderError, match="no such run folder"):
        draw([tmp_path / "nowhere"], tmp_path / "a.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunFolderError, match="not a run folder"):
        draw([run_folder(tmp_path / "a"), tmp_path / "empty"], tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"counts": [[1, 2]], "names": ["a"]}', "nonsense", '{"counts": "x"}']
)
def test_damaged_partition(tmp_path, text):
    path = run_folder(tmp_path / "a")
    (path / "partition.json").write_text(text)
    with pytest.raises(RunFolderError, match=r"partition\.json: damaged"):
        draw([path], tmp_path / "a.png")


def test_bad_out(tmp_path):
    path = run_folder(tmp_path / "a", rounds=2)
    with pytest.raises(ConfigError, match=r"curves\.pdf.*name it curves\.png"):
        draw([path], tmp_path / "curves.pdf")
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.png").mkdir()
    for out in (tmp_path / "file" / "a.png", tmp_path / "folder.png"):
        with pytest.raises(ConfigError, match="cannot write the picture"):
            draw([path], out)


def test_missing_matplotlib(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"pip install hpcfed\[plot\]"):
        draw([tmp_path], tmp_path / "a.png")


def test_partition_file_stays_small(tmp_path):
    path = add_partition(run_folder(tmp_path / "a"), 10_000, 10)
    assert (path / "partition.json").stat().st_size < 10_000
    found = json.loads((path / "partition.json").read_text())
    assert found["clients"] == 10_000 and len(found["counts"]) == 50 and found["examples"] == 40_010
