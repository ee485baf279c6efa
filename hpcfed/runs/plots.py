"""The picture of one or several runs: loss, metric and agreement against rounds and against bits, and who held what.

Formula  bits(t) = sum over rounds up to t of the bits a client sends up, for a client that votes in every round
Legend   thin: loss of every logged round on the clients' batches (of row 0, where there are several rows); thick: its
         moving mean; points: evaluations on data of the split's own; dotted: estimate of p_t (agreement.py).
         One colour a run (Okabe and Ito: told apart by colour-blind eyes too), one marker a split.
Promise  draws whatever is there: runs that still go on, were killed, were never evaluated, or have one round only
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, RunFolderError
from .read import PARTITION, read_metrics
from .scaling import read_study, study_figure

Curve = NDArray[np.float64]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", ":", "-.")  # the eighth run has the first one's colour and another line
MARKERS = ("o", "s", "^", "D", "v")
SMOOTHED = 20  # the moving mean covers one in so many of the logged rounds
MOST_PARTITIONS, MOST_NAMES = 5, 12
METRIC, LOSS = 1, 2  # columns of RunHistory.scores


@dataclass(frozen=True, eq=False)
class RunHistory:
    """What a run folder tells.

    rounds: [n] rounds done at each logged round, with loss, agreement, sign_error, bits (cumulative) [n]; NaN where
    unknown, and all NaN where a method has no votes or a run keeps its losses private.
    scores: split -> [k, 3] rounds done, metric, loss.  partition: what partition.json holds, or None.
    """

    name: str
    metric: str
    rounds: Curve
    loss: Curve
    agreement: Curve
    sign_error: Curve
    bits: Curve
    scores: dict[str, Curve]
    partition: dict[str, Any] | None

    def bits_at(self, rounds: Curve) -> Curve:
        """Bits a client has sent up after so many rounds."""
        return np.interp(rounds, np.append(0, self.rounds), np.append(0, self.bits))


def draw(runs: Sequence[Path], out: Path) -> None:
    """Write one PNG about the run folders `runs` to `out`; of a scaling study its own picture (scaling.py).

    Raises RunFolderError for a folder that is no run or has nothing to show, ConfigError where matplotlib is missing or
    `out` cannot be written.
    """
    if out.suffix.lower() != ".png":
        raise ConfigError(f"--out {out}: the picture is a PNG; name it {out.stem or 'hpcfed'}.png")
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("hpcfed plot needs matplotlib: pip install hpcfed[plot]") from None
    paths = list(dict.fromkeys(Path(run) for run in runs))
    names = [path.resolve().name for path in paths]
    study = read_study(paths) if len(paths) > 1 else None
    histories = [
        read_history(path, name if names.count(name) == 1 else str(path))
        for path, name in zip(paths, names, strict=True)
    ]
    with matplotlib.rc_context({"agg.path.chunksize": 10_000, "font.size": 9, "axes.titlesize": 9}):
        picture = io.BytesIO()
        figure = study_figure(Figure, study) if study else _figure(Figure, histories)
        figure.savefig(picture, format="png", dpi=130)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(picture.getvalue())
    except OSError as e:
        raise ConfigError(f"--out {out}: cannot write the picture there: {e.strerror}") from None


def read_history(path: Path, name: str) -> RunHistory:
    """The run folder `path`, to be called `name`. Raises RunFolderError if it is none or has nothing to show."""
    if not path.is_dir():
        raise RunFolderError(f"{path}: no such run folder")
    records = read_metrics(path)
    scored = [r for r in records if isinstance(r.get("split"), str)]
    logged = [r for r in records if "split" not in r and "timed" not in r]
    if not records:
        raise RunFolderError(f"{path}: not a run folder, or one without a logged round (no lines in metrics.jsonl)")
    rounds = _column(logged, "t")
    sent = np.nan_to_num(_column(logged, "uplink_bits_per_client"))
    return RunHistory(
        name,
        next((str(r["metric"]) for r in scored if "metric" in r), ""),
        rounds,
        _column(logged, "loss"),
        _column(logged, "agreement"),
        _column(logged, "sign_error"),
        np.cumsum(sent * np.diff(rounds, prepend=0)),  # rounds that were not logged cost what the next logged one did
        {split: _scores(scored, split) for split in dict.fromkeys(r["split"] for r in scored)},
        _partition(path / PARTITION),
    )


def _column(records: Sequence[Mapping[str, Any]], key: str) -> Curve:
    values = [r.get(key) for r in records]
    return np.array([v if isinstance(v, int | float) else np.nan for v in values], np.float64)


def _scores(records: Sequence[Mapping[str, Any]], split: str) -> Curve:
    of_split = [r for r in records if r["split"] == split]
    return np.stack([_column(of_split, key) for key in ("t", "value", "loss")], axis=1)


def _partition(file: Path) -> dict[str, Any] | None:
    if not file.exists():
        return None
    try:
        partition: dict[str, Any] = json.loads(file.read_bytes())
        if list(partition) in (["digest"], ["digest", "digests"]):  # of a private run
            return None
        counts = np.array(partition["counts"], np.int64)
        if not (counts.ndim == 2 and counts.shape[1] == len(partition["names"]) and len(partition["sizes"]) == 3):
            raise ValueError
        float(partition["skew"]), int(partition["clients"]), [f"{size:g}" for size in partition["sizes"]]
    except OSError as e:
        raise RunFolderError(f"{file}: cannot read it: {e.strerror}") from None
    except (ValueError, TypeError, KeyError):
        raise RunFolderError(f"{file}: damaged, not the partition that hpcfed train writes") from None
    return partition


def smooth(values: Curve, window: int) -> Curve:
    """Centred moving mean over `window` values, fewer at the ends; NaN are left out."""
    known = np.isfinite(values)
    sums = np.cumsum(np.append(0, np.where(known, values, 0)))
    counts = np.cumsum(np.append(0, known))
    at = np.arange(len(values))
    low, high = np.maximum(at - (window - 1) // 2, 0), np.minimum(at + window // 2 + 1, len(values))
    many = counts[high] - counts[low]
    return np.where(many > 0, (sums[high] - sums[low]) / np.maximum(many, 1), np.nan)


def _figure(figure_class: Any, histories: Sequence[RunHistory]) -> Any:
    partitions = _distinct_partitions(histories)
    shown = partitions[:MOST_PARTITIONS]
    rows = 2 + -(-(1 + len(shown)) // 2)
    figure = figure_class(figsize=(11, 3.1 * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, 2, squeeze=False)
    for column, against in enumerate(("rounds", "bits")):
        loss, metric = axes[0, column], axes[1, column]
        metric.sharex(loss)
        _losses(loss, histories, against)
        _metrics(metric, histories, against)
        for panel in (loss, metric):
            _scale(panel, histories, against)
    agreement, *owners = axes[2:].flat
    _agreements(agreement, histories)
    _scale(agreement, histories, "rounds")
    for panel, (partition, names) in zip(owners, shown, strict=False):
        _owners(panel, partition, names if len(partitions) > 1 else [])
    for panel in owners[len(shown) :]:
        panel.set_axis_off()
    if not partitions:
        _say(owners[0], "no partition.json in these runs")
    if len(partitions) > len(shown):
        figure.supxlabel(f"{len(partitions) - len(shown)} more partitions of data are not drawn", fontsize=8)
    figure.get_layout_engine().set(h_pad=0.08, w_pad=0.08)
    colours, kinds = _legends(histories)
    figure.legend(handles=colours, loc="outside upper center", ncols=4, frameon=False)
    figure.legend(handles=kinds, loc="outside lower center", ncols=4, frameon=False)
    return figure


def _style(i: int) -> dict[str, Any]:
    return {"color": COLOURS[i % len(COLOURS)], "linestyle": LINES[i // len(COLOURS) % len(LINES)]}


def _splits(histories: Sequence[RunHistory]) -> list[str]:
    return list(dict.fromkeys(split for history in histories for split in history.scores))


def _legends(histories: Sequence[RunHistory]) -> tuple[list[Any], list[Any]]:
    """Runs by colour, and in grey what kinds of lines and points mean; outside of the panels, where no data are."""
    from matplotlib.lines import Line2D

    colours = [Line2D([], [], linewidth=2, label=history.name, **_style(i)) for i, history in enumerate(histories)]
    kinds = []
    if any(_known(history.loss, history.agreement) for history in histories):
        kinds += [
            Line2D([], [], color="grey", linewidth=0.6, label="clients, each logged round"),
            Line2D([], [], color="grey", linewidth=2, label=f"their moving mean over 1/{SMOOTHED} of the rounds"),
        ]
    if any(_known(history.sign_error) for history in histories):
        kinds.append(Line2D([], [], color="grey", linewidth=1.6, linestyle=":", label="estimated sign error p_t"))
    for split, marker in zip(_splits(histories), MARKERS, strict=False):
        kinds.append(Line2D([], [], color="grey", linewidth=0, marker=marker, label=f"evaluated on {split}"))
    return colours, kinds


def _known(*curves: Curve) -> bool:
    return any(bool(np.isfinite(curve).any()) for curve in curves)


def _say(panel: Any, text: str) -> None:
    panel.text(0.5, 0.5, text, ha="center", color="grey", transform=panel.transAxes)


def _lines(panel: Any, i: int, x: Curve, y: Curve) -> None:
    """Every logged round thinly, the moving mean thickly; a single round is a point."""
    if not _known(y):
        return
    style, alone = _style(i), "." if len(y) == 1 else ""
    panel.plot(x, y, linewidth=0.6, alpha=0.35, zorder=1, **style)
    panel.plot(x, smooth(y, max(1, len(y) // SMOOTHED)), linewidth=1.8, marker=alone, zorder=2, **style)


def _points(
    panel: Any, i: int, history: RunHistory, against: str, which: int, splits: list[str], logarithmic: bool = False
) -> None:
    """Evaluations; joined by lines only for the metric, as the loss has a curve of its own."""
    for split, scores in history.scores.items():
        if logarithmic:
            scores = scores[scores[:, 0] > 0]  # the way from 0 to the first bit would fill half the panel
        t, n = scores[:, 0], splits.index(split)
        style = _style(i) | {"linewidth": 1.4 if which == METRIC else 0}
        marker = {"marker": MARKERS[n % len(MARKERS)], "markersize": 5.5, "markeredgecolor": "white", "clip_on": False}
        x = t if against == "rounds" else history.bits_at(t)
        panel.plot(x, scores[:, which], zorder=3, **style, **marker)


def _losses(panel: Any, histories: Sequence[RunHistory], against: str) -> None:
    logarithmic = against == "bits" and _far_apart(histories)
    for i, history in enumerate(histories):
        if against == "rounds" or _sends(history):
            _lines(panel, i, history.rounds if against == "rounds" else history.bits, history.loss)
            _points(panel, i, history, against, LOSS, _splits(histories), logarithmic)
    panel.set(title=f"Loss against {_title(against)}", ylabel="loss (nats an example)")
    if not any(_known(history.loss, *(scores[:, LOSS] for scores in history.scores.values())) for history in histories):
        panel.set_ylim(0, 1)
        _say(panel, "no losses in these runs")


def _metrics(panel: Any, histories: Sequence[RunHistory], against: str) -> None:
    from matplotlib.ticker import PercentFormatter

    logarithmic = against == "bits" and _far_apart(histories)
    for i, history in enumerate(histories):
        if against == "rounds" or _sends(history):
            _points(panel, i, history, against, METRIC, _splits(histories), logarithmic)
    name = " / ".join(dict.fromkeys(history.metric for history in histories if history.metric)) or "metric"
    panel.set(title=f"{name.capitalize()} against {_title(against)}", ylabel=name)
    panel.yaxis.set_major_formatter(PercentFormatter(1.0))
    if not _splits(histories):
        panel.set_ylim(0, 1)
        _say(panel, "no evaluation yet")


def _agreements(panel: Any, histories: Sequence[RunHistory]) -> None:
    """Agreement is never below a half and p_t never above it, so the two share an axis without crossing."""
    from matplotlib.ticker import MultipleLocator, PercentFormatter

    for i, history in enumerate(histories):
        _lines(panel, i, history.rounds, history.agreement)
        if _known(history.sign_error):
            style = _style(i) | {"linestyle": ":", "linewidth": 1.6, "marker": "." if len(history.rounds) == 1 else ""}
            panel.plot(history.rounds, history.sign_error, zorder=2, **style)
    panel.set(title="Votes that agree with the majority (line, above 50 %),\nestimated sign error p_t (dotted, below)")
    panel.set(ylabel="share of votes", ylim=(-0.02, 1.02))
    panel.yaxis.set_major_locator(MultipleLocator(0.25))
    panel.yaxis.set_major_formatter(PercentFormatter(1.0))
    if any(_known(history.agreement, history.sign_error) for history in histories):
        panel.axhline(0.5, color="grey", linewidth=0.8)
    else:
        _say(panel, "no votes in these runs")


def _title(against: str) -> str:
    return "rounds" if against == "rounds" else "bits sent up"


def _sends(history: RunHistory) -> bool:
    """Whether its clients send anything: a centralised run has no place on an axis of bits."""
    return not len(history.bits) or bool(history.bits[-1] > 0)


def _far_apart(histories: Sequence[RunHistory]) -> bool:
    """Whether one run sends a hundred times what another does, so that bits want a logarithmic axis."""
    ends = [max(1.0, history.bits[-1]) for history in histories if len(history.bits) and _sends(history)] or [1.0]
    return max(ends) > 100 * min(ends)


def _scale(panel: Any, histories: Sequence[RunHistory], against: str) -> None:
    """Axis from 0, and for bits logarithmic where one run sends a hundred times what another does."""
    from matplotlib.ticker import MaxNLocator

    label = "rounds" if against == "rounds" else "uplink bits of a client that votes in every round"
    if against == "bits" and _far_apart(histories):
        panel.set_xscale("symlog", linthresh=1)
    else:
        panel.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    panel.set(xlabel=label)
    panel.set_xlim(left=0)
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)


def _distinct_partitions(histories: Sequence[RunHistory]) -> list[tuple[dict[str, Any], list[str]]]:
    """Every different partition with the names of the runs that have it."""
    distinct: dict[str, tuple[dict[str, Any], list[str]]] = {}
    for history in histories:
        if history.partition:
            distinct.setdefault(json.dumps(history.partition, sort_keys=True), (history.partition, []))[1].append(
                history.name
            )
    return list(distinct.values())


def _owners(panel: Any, partition: Mapping[str, Any], runs: Sequence[str]) -> None:
    """Stacked bars: how many examples of each class every client holds, for the clients that the file lists."""
    from matplotlib import colormaps
    from matplotlib.ticker import MaxNLocator

    names, counts = partition["names"], np.array(partition["counts"], np.int64)
    colours = colormaps["viridis"](np.linspace(0, 1, len(names)))
    at, bottom, edge = np.arange(len(counts)), np.zeros(len(counts)), {"edgecolor": "white", "linewidth": 0.2}
    for name, colour, counts_of_class in zip(names, colours, counts.T, strict=True):
        panel.bar(at, counts_of_class, 0.85, bottom, color=colour, label=name, **edge)
        bottom += counts_of_class
    smallest, median, largest = partition["sizes"]
    who = f"{partition['clients']:,} client" + "s" * (partition["clients"] != 1)
    if len(counts) < partition["clients"]:
        who = f"first {len(counts)} of {who}"
    of = f" in {', '.join(runs) if len(runs) < 3 else f'{len(runs)} runs'}" if runs else ""
    panel.set(
        title=f"Examples of {who}{of}; skew {partition['skew']:.2f} (0: all alike)\n"
        f"smallest {smallest:,g}, median {median:,g}, largest {largest:,g} examples",
        xlabel="client",
        ylabel="examples",
    )
    panel.set_ylim(0, 1.05 * bottom.max())
    panel.xaxis.set_major_locator(MaxNLocator(10, integer=True, min_n_ticks=1))
    panel.yaxis.set_major_locator(MaxNLocator(8, integer=True))
    panel.spines[["top", "right"]].set_visible(False)
    handles, labels = panel.get_legend_handles_labels()
    if len(names) > MOST_NAMES:  # both ends and the middle say what the shades mean
        some = [0, len(names) // 2, len(names) - 1]
        handles, labels = [handles[c] for c in some], [labels[c] for c in some]
    labels = [label if len(label) <= 14 else label[:13] + "…" for label in labels]
    beside = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}
    panel.legend(handles[::-1], labels[::-1], title="class", frameon=False, fontsize=8, **beside)
