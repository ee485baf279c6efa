"""The family on the same bench: every method, with data dealt alike and unlike, without and with an attacker.

    python benchmarks/study.py [--task digits sst2] [--out runs/study] [--shared ../shared] [--processes N] [--json]
    python benchmarks/study.py --report           tables and pictures again, from the runs that are there

A cell of the grid is a method, a partition, an attacker and a seed, and is trained by a `hpcfed train` of its own,
on one thread, N at a time. Finished cells are skipped and interrupted ones resumed, so the study can be stopped and
gone on with. SST-2 and its model come from --shared; without it that task is skipped.

All zeroth-order methods may find the same number of slopes a client, each on as many examples: a round of ZO-FedAvg
with five local steps counts as five. MeZO, which has no clients, has their batches for its one batch. FedSGD has fewer
rounds, as a gradient says more than a slope. How the step sizes were found stands in docs/RESULTS.md.

The numbers go to the marked places of docs/RESULTS.md, the rest of it is written by hand; the pictures go beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

DOCS = Path(__file__).resolve().parent.parent / "docs"
SEEDS = (0, 1, 2)
CLIENTS = 5
PARTITIONS = {"iid": ["clients.partition=iid"], "dirichlet": ["clients.partition=dirichlet", "clients.beta=1.0"]}


@dataclass(frozen=True)
class Method:
    """lr: task -> step size.  attack: what one of the clients does, if any.  local_steps: slopes a client and round.

    Attackers do the worst to FeedSign and FedSGD, and what the FeedSign paper does to methods that send slopes.
    """

    lr: dict[str, float]
    attack: str | None = "random"
    local_steps: int | None = None


METHODS = {
    "feedsign": Method({"digits": 8e-3, "sst2": 1e-3}, "reverse"),
    "zo-fedsgd": Method({"digits": 2e-3, "sst2": 2e-4}),
    "zo-fedavg": Method({"digits": 4e-3, "sst2": 4e-4}, local_steps=5),
    "fedkseed": Method({"digits": 1e-3, "sst2": 2e-4}, local_steps=20),
    "fedkseed-pro": Method({"digits": 4e-3, "sst2": 2e-4}, local_steps=20),
    "mezo": Method({"digits": 2e-3, "sst2": 2e-4}, None),
    "fedsgd": Method({"digits": 0.3, "sst2": 0.01}, "reverse"),
}


@dataclass(frozen=True)
class Bench:
    """A task.  slopes: of each client, in all; gradients: rounds of FedSGD.  batch: examples of a client and round.

    points: evaluations on the way.  scale: standard deviation of the random slopes that an attacker sends.
    """

    recipe: str
    slopes: int
    gradients: int
    batch: int
    points: int
    scale: float
    settings: tuple[str, ...] = ()


BENCHES = {
    "digits": Bench("digits", slopes=1000, gradients=100, batch=32, points=10, scale=10.0),
    "sst2": Bench(
        "sst2-opt-125m",
        slopes=100,
        gradients=20,
        batch=16,
        points=5,
        scale=10.0,
        settings=(
            "model.name={shared}/models/opt-reviews",
            "task.data={shared}/data/sst2",
            "task.train_limit=7000",
            'task.eval_splits=["test"]',
            "task.eval_limit=800",
            "model.dtype=bfloat16",
            "clients.max_batch_tokens=500",
            "algorithm.schedule=linear",
            "mesh.threads=1",
        ),
    ),
}


@dataclass(frozen=True)
class Cell:
    """One run of the grid.  attack: a kind, or "none"."""

    task: str
    method: str
    partition: str
    attack: str
    seed: int

    def folder(self, out: Path) -> Path:
        return out / self.task / f"{self.method}-{self.partition}-{self.attack}-{self.seed}"

    @property
    def rounds(self) -> int:
        bench = BENCHES[self.task]
        return bench.gradients if self.method == "fedsgd" else bench.slopes // (METHODS[self.method].local_steps or 1)

    def settings(self, shared: Path) -> list[str]:
        """What differs from the recipe."""
        bench, method, central = BENCHES[self.task], METHODS[self.method], self.method == "mezo"
        together = CLIENTS if central or self.method == "feedsign" else 1  # the others evaluate clients one by one
        chosen = [
            f"algorithm.name={self.method}",
            f"algorithm.lr={method.lr[self.task]}",
            f"rounds={self.rounds}",
            f"eval_every={max(1, self.rounds // bench.points)}",
            f"seed={self.seed}",
            f"clients.count={CLIENTS}",
            f"clients.batch={bench.batch * (CLIENTS if central else 1)}",
            f"clients.group={together}",
            *PARTITIONS[self.partition],
        ]
        if method.local_steps:
            chosen.append(f"algorithm.local_steps={method.local_steps}")
        if self.attack != "none":
            chosen += [f"attack.kind={self.attack}", "attack.clients=1"]
        if self.attack == "random":
            chosen.append(f"attack.scale={bench.scale}")
        return [setting.replace("{shared}", str(shared)) for setting in bench.settings] + chosen


def grid(task: str) -> list[Cell]:
    """All cells of a task, first those without attackers. MeZO's data are in one place: no partition, no attacker."""
    cells = []
    for partition, attacked in ((p, a) for p in PARTITIONS for a in (False, True)):
        for seed in SEEDS:
            for name, method in METHODS.items():
                kind = method.attack if attacked else "none"
                if kind and (method.attack or partition == "iid"):
                    cells.append(Cell(task, name, partition, kind, seed))
    return cells


def summary(folder: Path) -> dict[str, Any] | None:
    """summary.json of a finished run; None if there is none."""
    try:
        found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    except FileNotFoundError:
        return None
    return found if found["status"] == "finished" else None


class Runner:
    """Trains cells in processes of their own; stop() ends those that run, which can be resumed."""

    def __init__(self, out: Path, shared: Path, total: int) -> None:
        self.out, self.shared, self.total, self.done, self.stopped = out, shared, total, 0, False
        self.failed: list[str] = []
        self._live: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()

    def train(self, cell: Cell) -> None:
        folder = cell.folder(self.out)
        line = [sys.executable, "-m", "hpcfed", "train", BENCHES[cell.task].recipe, "--out", str(folder)]
        line += ["--quiet", "--resume"]  # a new folder has nothing to resume
        for setting in cell.settings(self.shared):
            line += ["--set", setting]
        # A session of its own: Ctrl-C is for the study, which then ends its children one by one.
        with self._lock:
            if self.stopped:
                return
            child = subprocess.Popen(
                line,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            self._live.add(child)
        errors = child.communicate()[1]
        with self._lock:
            self._live.discard(child)
            self.done += 1
            found = summary(folder)
            if found is None and not self.stopped:
                self.failed.append(f"{folder}: exit {child.returncode}\n{errors.strip()[-2000:]}")
            what = f"{found['metric_after']:.1%}, {found['seconds']:.0f} s" if found else "did not finish"
            print(f"{self.done}/{self.total} {folder.relative_to(self.out)}: {what}", flush=True)

    def stop(self) -> None:
        with self._lock:
            self.stopped = True
            for child in self._live:
                child.terminate()


def run(cells: Sequence[Cell], out: Path, shared: Path, processes: int) -> None:
    """Train the cells that are not finished; SystemExit if one cannot be."""
    todo = [cell for cell in cells if summary(cell.folder(out)) is None]
    print(f"{len(cells)} runs, {len(cells) - len(todo)} of them finished already", flush=True)
    runner = Runner(out, shared, len(todo))
    with ThreadPoolExecutor(processes) as pool:
        try:
            for _ in pool.map(runner.train, todo):
                pass
        except KeyboardInterrupt:
            runner.stop()
            raise SystemExit("stopped; the same command goes on from here") from None
    if runner.failed:
        raise SystemExit("\n".join(runner.failed))


def results(task: str, out: Path) -> list[dict[str, Any]]:
    """A line for every method, partition and attacker of which all seeds are finished."""
    lines = []
    for cell in grid(task):
        runs = [summary(replace(cell, seed=seed).folder(out)) for seed in SEEDS]
        found = [run for run in runs if run]
        if cell.seed != SEEDS[0] or len(found) < len(SEEDS):
            continue
        line = asdict(cell) | {"lr": METHODS[cell.method].lr[task], "rounds": cell.rounds}
        line |= {key: [run[key] for run in found] for key in ("metric_before", "metric_after", "loss_after")}
        line |= {
            "metric": found[0]["metric_name"],
            "uplink_bits": found[0]["uplink_bits_per_client_round"] * cell.rounds,
            "seconds": float(np.median([run["seconds"] for run in found])),
            "peak_bytes": max(run["peak_memory_bytes"] for run in found),
        }
        lines.append(line)
    return lines


def table(lines: Sequence[dict[str, Any]]) -> str:
    """The table of a task, as Markdown: a row for a method and partition."""
    rows = ["| method | data | lr | rounds | no attacker | loss | one of five attacks | loss | bits up | s | MB |"]
    rows.append("|---" * 11 + "|")
    attacked = {(line["method"], line["partition"]): line for line in lines if line["attack"] != "none"}
    for line in lines:
        if line["attack"] == "none":
            central = METHODS[line["method"]].attack is None
            other = attacked.get((line["method"], line["partition"]))
            cells = [line["method"], "in one place" if central else line["partition"], f"{line['lr']:g}"]
            cells += [f"{line['rounds']:,}", _spread(line), f"{np.mean(line['loss_after']):.3f}"]
            cells += [_spread(other), f"{np.mean(other['loss_after']):.3f}"] if other else ["-", "-"]
            cells += ["-" if central else _bits(line["uplink_bits"])]
            cells += [f"{line['seconds']:.0f}", f"{line['peak_bytes'] / 1e6:.0f}"]
            rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _spread(line: dict[str, Any]) -> str:
    values = 100 * np.array(line["metric_after"])
    return f"**{values.mean():.1f}** ({values.min():.1f} to {values.max():.1f})"


def _bits(bits: float) -> str:
    for size, word in ((1e9, " billion"), (1e6, " million")):
        if bits >= size:
            return f"{bits / size:,.2f}{word}"
    return f"{bits:,.0f}"


def curves(line: dict[str, Any], out: Path) -> np.ndarray:
    """float64 [seeds, points, 3]: rounds, loss and metric of the evaluations of a line's runs."""
    runs = []
    for seed in SEEDS:
        cell = Cell(line["task"], line["method"], line["partition"], line["attack"], seed)
        records = map(json.loads, (cell.folder(out) / "metrics.jsonl").read_text().splitlines())
        runs.append([[r["t"], r["loss"], r["value"]] for r in records if "split" in r])
    return np.array(runs, np.float64)


def _pictures(task: str, lines: Sequence[dict[str, Any]], out: Path) -> Iterator[Path]:
    """A picture for the runs with all data dealt alike, without and with an attacker."""
    from matplotlib.figure import Figure

    for name, attacked in (("", False), ("-attacked", True)):
        shown = [line for line in lines if line["partition"] == "iid" and (line["attack"] != "none") == attacked]
        if not shown:
            continue
        figure = Figure(figsize=(10, 6.5), layout="constrained")
        axes = figure.subplots(2, 2, sharex="col")
        for line in shown:
            _draw(axes, line, curves(line, out))
        who = f"{CLIENTS} clients, one of them attacks" if attacked else f"{CLIENTS} honest clients"
        figure.suptitle(f"{task}, data dealt alike, {who}; mean of {len(SEEDS)} seeds, band from lowest to highest")
        _label(axes, shown[0]["metric"])
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
        path = DOCS / f"study-{task}{name}.png"
        figure.savefig(path, dpi=100)
        yield path


def _draw(axes: Any, line: dict[str, Any], runs: np.ndarray) -> None:
    """One method's loss and metric, against rounds and, where clients send anything, against bits."""
    from hpcfed.runs.plots import COLOURS, MARKERS

    i = list(METHODS).index(line["method"])
    colour, style = COLOURS[i], {"marker": MARKERS[i % len(MARKERS)], "markersize": 4, "linewidth": 1.6}
    label = line["method"] + (f", {line['attack']}" if line["attack"] != "none" else "")
    rounds = runs[0, :, 0]
    for row, values in enumerate((runs[..., 1], runs[..., 2])):
        for column, x in enumerate((rounds, rounds * line["uplink_bits"] / line["rounds"])):
            if not x.any():  # MeZO sends nothing
                continue
            panel = axes[row, column]
            panel.plot(x[1:], values.mean(0)[1:], color=colour, label=label, **style)
            panel.fill_between(x[1:], values.min(0)[1:], values.max(0)[1:], color=colour, alpha=0.15, linewidth=0)
    for panel in axes[1]:
        panel.axhline(runs[:, 0, 2].mean(), color="grey", linewidth=0.8, linestyle=":")


def _label(axes: Any, metric: str) -> None:
    from matplotlib.ticker import PercentFormatter

    for panel in axes.flat:
        panel.set_xscale("log")
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    for panel in axes[0]:
        panel.set_ylabel("loss on test data (nats an example)")
    for panel in axes[1]:
        panel.set_ylabel(f"{metric} on test data")
        panel.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes[1, 0].set_xlabel("rounds (dotted: before training)")
    axes[1, 1].set_xlabel("bits a client has sent up")


def report(lines: Sequence[dict[str, Any]], out: Path) -> None:
    """Tables between their marks in docs/RESULTS.md, and pictures beside it."""
    file = DOCS / "RESULTS.md"
    text = file.read_text(encoding="utf-8")
    for task in BENCHES:
        mine = [line for line in lines if line["task"] == task]
        if not mine:
            continue
        begin, end = f"<!-- {task}: written by benchmarks/study.py -->", f"<!-- {task}: end -->"
        assert begin in text and end in text, f"{file} has lost its marks {begin} ... {end}"
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n{table(mine)}\n{end}{rest.partition(end)[2]}"
        print("\n".join(map(str, _pictures(task, mine, out))))
    file.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--task", nargs="+", choices=list(BENCHES), default=list(BENCHES))
    parser.add_argument("--out", type=Path, default=Path("runs/study"))
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="holds models/opt-reviews and data/sst2")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--report", action="store_true", help="train nothing, write tables and pictures again")
    args = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell started us in the background, deaf to SIGINT
        signal.signal(number, signal.default_int_handler)
    lines = []
    for task in args.task:
        if task == "sst2" and not args.report and not (args.shared / "models/opt-reviews").is_dir():
            print(f"sst2 is skipped: {args.shared}/models/opt-reviews is not there; --shared names another folder")
            continue
        if not args.report:
            run(grid(task), args.out, args.shared, args.processes)
        lines += results(task, args.out)
    for line in lines:
        print(f"{line['task']:7} {line['method']:13} {line['partition']:10} {line['attack']:8} {_spread(line)}")
    report(lines, args.out)
    if args.json:
        print(json.dumps({"benchmark": "study", "results": lines}))


if __name__ == "__main__":
    main()
