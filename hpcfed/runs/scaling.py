"""The picture of a scaling study: rounds a second, efficiency and where the time goes, against the number of ranks.

Formula  strong scaling (the same clients):       E(p) = rate(p) p_0 / (rate(p_0) p)
         weak scaling (as many clients a rank):   E(p) = rate(p) / rate(p_0)
Legend   p: ranks, rows times shards; p_0: the fewest; rate: rounds a second, mean over the runs with as many ranks,
         each over all of its rounds and without evaluations
Promise  A study is told by its runs' recipes and summaries, not by the names of its folders: the same recipe but for
         the number of clients, on different numbers of ranks, and every run fits one of the two lines. Runs of one
         recipe on different numbers of ranks have the same curves, so nothing is lost by drawing this instead.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from ..clock import SHARES, mean_shares
from ..errors import RunFolderError
from .read import RECIPE, SUMMARY, read_metrics, read_summary, recipe_differences

#: Settings in which the runs of a study may differ: the number of clients, and what a round's time does not depend on.
FREE = (
    "clients.count", "clients.per_round", "mesh.transport", "rounds", "eval_every", "eval_batch", "check_every",
    "log_every", "save_every",
)  # fmt: skip
COLOURS = dict(zip(SHARES, ("#0072B2", "#56B4E9", "#D55E00", "#009E73", "#BBBBBB"), strict=True))
LINES = {"strong": ("#0072B2", "o", "the same clients"), "weak": ("#D55E00", "s", "the same clients a rank")}


@dataclass(frozen=True)
class Point:
    """One run.  voters: clients a round.  rate: rounds a second.  split: seconds of each of clock.SHARES, or None."""

    ranks: int
    voters: int
    rate: float
    split: dict[str, float] | None


@dataclass(frozen=True)
class Line:
    """Strong or weak scaling: the mean of all runs with as many ranks.  splits: [n][len(SHARES)], NaN where unknown."""

    ranks: list[int]
    rates: list[float]
    efficiency: list[float]
    splits: list[list[float]]


def read_study(runs: Sequence[Path]) -> dict[str, Line] | None:
    """The lines "strong" and "weak", of which one may be missing; None if the folders are no scaling study."""
    if not all((run / SUMMARY).is_file() and (run / RECIPE).is_file() for run in runs):
        return None
    try:
        recipes = [(run / RECIPE).read_text(encoding="utf-8") for run in runs]
        if any(recipe_differences(recipes[0], other, FREE) for other in recipes[1:]):
            return None
        points = [_point(run, tomllib.loads(recipe)) for run, recipe in zip(runs, recipes, strict=True)]
    except (RunFolderError, OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
        return None  # damaged: the ordinary picture says what is wrong, or does without
    first = min(points, key=lambda point: (point.ranks, point.voters))
    strong = [point for point in points if point.voters == first.voters]
    weak = [point for point in points if point.voters * first.ranks == first.voters * point.ranks]
    if {id(point) for point in (*strong, *weak)} != {id(point) for point in points}:
        return None
    lines = {"strong": _line(strong, shared=True), "weak": _line(weak, shared=False)}
    return {name: line for name, line in lines.items() if len(line.ranks) > 1} or None


def _point(run: Path, recipe: dict[str, Any]) -> Point:
    summary = read_summary(run)
    count, share = recipe["clients"]["count"], recipe["clients"]["per_round"]
    voters = share if isinstance(share, int) else max(1, round(share * count))
    split = mean_shares(read_metrics(run))
    return Point(summary["rows"] * summary["shards"], voters, 1 / summary["seconds_per_round"], split)


def _line(points: Sequence[Point], shared: bool) -> Line:
    """shared: the ranks share the work of a round, so that twice as many should take half the time."""
    ranks, rates, splits = [], [], []
    for p, group in groupby(sorted(points, key=lambda point: point.ranks), key=lambda point: point.ranks):
        some = list(group)
        known = [[point.split[part] for part in SHARES] for point in some if point.split]
        ranks.append(p)
        rates.append(sum(point.rate for point in some) / len(some))
        splits.append(np.mean(known, axis=0).tolist() if known else [float("nan")] * len(SHARES))
    ideal = [p / ranks[0] if shared else 1.0 for p in ranks]
    return Line(ranks, rates, [rate / rates[0] / x for rate, x in zip(rates, ideal, strict=True)], splits)


def study_figure(figure_class: Any, study: dict[str, Line]) -> Any:
    """Rounds a second and efficiency above, the time of a round below: a matplotlib figure."""
    figure = figure_class(figsize=(11, 7.6), layout="constrained")
    axes = figure.subplots(2, 2)
    ticks = sorted({p for line in study.values() for p in line.ranks})
    _rates(axes[0, 0], study)
    _efficiencies(axes[0, 1], study)
    for panel in axes[0]:
        panel.set_xscale("log", base=2)
        panel.set_xticks(ticks, [str(p) for p in ticks])
        panel.minorticks_off()
        panel.set_xlabel("ranks")
        panel.grid(alpha=0.25)
        panel.legend(frameon=False)
    for panel, name in zip(axes[1], LINES, strict=True):
        if name in study:
            _bars(panel, name, study[name])
        else:
            panel.set_axis_off()
            panel.text(0.5, 0.5, f"no {name} scaling in these runs", ha="center", transform=panel.transAxes)
    for panel in axes.flat:
        panel.spines[["top", "right"]].set_visible(False)
    figure.get_layout_engine().set(h_pad=0.08, w_pad=0.08)
    return figure


def _rates(panel: Any, study: dict[str, Line]) -> None:
    from matplotlib.ticker import FormatStrFormatter, MaxNLocator

    for name, line in study.items():
        colour, marker, what = LINES[name]
        ideal = [rate / e for rate, e in zip(line.rates, line.efficiency, strict=True)]
        panel.plot(line.ranks, ideal, color=colour, linestyle=":", linewidth=1, label=f"{name}, ideal")
        panel.plot(line.ranks, line.rates, color=colour, marker=marker, label=f"{name} ({what})")
    panel.set_yscale("log", base=2)
    panel.yaxis.set_major_locator(MaxNLocator(6))
    panel.yaxis.set_major_formatter(FormatStrFormatter("%.3g"))
    panel.minorticks_off()
    panel.set(title="Rounds a second", ylabel="rounds / s")


def _efficiencies(panel: Any, study: dict[str, Line]) -> None:
    from matplotlib.ticker import PercentFormatter

    for name, line in study.items():
        colour, marker, _ = LINES[name]
        panel.plot(line.ranks, line.efficiency, color=colour, marker=marker, label=name)
    panel.axhline(1, color="grey", linestyle=":", linewidth=1)
    panel.yaxis.set_major_formatter(PercentFormatter(1.0))
    panel.set_ylim(0, 1.1 * max(1.0, *(e for line in study.values() for e in line.efficiency)))
    panel.set(title="Efficiency", ylabel="of the ideal")


def _bars(panel: Any, name: str, line: Line) -> None:
    """Stacked: a round of the mean row, part by part."""
    at, bottom, shown = np.arange(len(line.ranks)), np.zeros(len(line.ranks)), 1e3 * np.array(line.splits)
    if not np.isfinite(shown).any():
        panel.text(0.5, 0.5, "no times in these runs", ha="center", transform=panel.transAxes)
    for part, spent in zip(SHARES, np.nan_to_num(shown).T, strict=True):
        panel.bar(at, spent, 0.7, bottom, color=COLOURS[part], label=part, edgecolor="white", linewidth=0.4)
        bottom += spent
    panel.set_xticks(at, [str(p) for p in line.ranks])
    panel.set(title=f"A round, {name} scaling ({LINES[name][2]})", xlabel="ranks", ylabel="ms, mean over rows")
    handles, labels = panel.get_legend_handles_labels()
    panel.legend(handles[::-1], labels[::-1], frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
