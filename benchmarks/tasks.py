"""The papers' language tasks with one pre-trained model: what it scores as it is, and after some rounds.

    python benchmarks/tasks.py --model FOLDER --data FOLDER [--out runs/tasks] [--tasks copa squad] [--seeds 0 1 2]
    python benchmarks/tasks.py --data FOLDER --report          the tables, too, into docs/RESULTS.md

FOLDER of --data holds a folder a task, in the hub's columns. What the model scores as it is comes from `hpcfed
evaluate`, everything else from a `hpcfed train` of its own, one after the other; finished ones are skipped and
interrupted ones resumed. A run keeps the round with the lowest loss on dev, which is carved off the training data;
scores are on rows that nobody trained on or chose by. Step sizes: the one of LRS, a method's own, with the lowest dev
loss after a fifth of the rounds with seed 0; all methods have as many to choose from.

The numbers go to the marked places of docs/RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

DOCS = Path(__file__).resolve().parent.parent / "docs"
CLIENTS = 5
#: Method -> step sizes that are tried.
LRS = {"feedsign": (1e-5, 3e-5, 1e-4), "zo-fedsgd": (1e-7, 3e-7, 1e-6)}


@dataclass(frozen=True)
class Bench:
    """folder: of the data.  limit: examples that are scored.  batch: of a client; 0: the task is not trained on.

    dev: examples of the training data that choose step size and round.  settings: what else differs.
    """

    folder: str
    limit: int
    batch: int = 0
    dev: int = 100
    settings: tuple[str, ...] = ()


BENCHES = {
    "sst2": Bench("sst2", 400, 4, 200),
    "cb": Bench("cb", 56, 4, 50),
    "wsc": Bench("wsc", 104, 4),
    "multirc": Bench("multirc", 300),
    "copa": Bench("copa", 100, 4),
    "record": Bench("record", 32),
    "squad": Bench("squad", 100, 2, 60),
    "drop": Bench("drop", 100),
    "arc-challenge": Bench("arc_challenge", 400),
    "mmlu": Bench("mmlu", 400, settings=("task.train_split=dev",)),
    "natural-instructions": Bench("natural_instructions", 103),
    "dolly": Bench("dolly", 100),
}


def recipe(model: Path, out: Path) -> Path:
    """What all runs have in common, as a file."""
    text = f"""rounds = 600
[model]
name = {json.dumps(str(model))}
[task]
name = "copa"
[clients]
count = {CLIENTS}
batch = 4
group = {CLIENTS}
max_batch_tokens = 4096
[algorithm]
lr = 1e-5
mu = 1e-3
schedule = "linear"
"""
    out.mkdir(parents=True, exist_ok=True)
    (out / "recipe.toml").write_text(text)
    return out / "recipe.toml"


def settings_of(name: str, data: Path) -> list[str]:
    """What differs from the recipe in an evaluation of the task."""
    bench = BENCHES[name]
    return [f"task.name={name}", f"task.data={data / bench.folder}", f"task.eval_limit={bench.limit}", *bench.settings]


def hpcfed(threads: int, *line: str) -> str:
    """stdout of a command of hpcfed; SystemExit with what it said if it fails."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [sys.executable, "-m", "hpcfed", *line], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"hpcfed {' '.join(line)}: exit {done.returncode}\n{done.stderr.strip()[-2000:]}")
    return done.stdout


def zero_shot(name: str, base: Path, data: Path, out: Path, threads: int) -> dict[str, Any]:
    """The score of the model as it is."""
    file = out / "zero-shot" / f"{name}.json"
    if not file.exists():
        chosen = [part for setting in [*settings_of(name, data), "task.train_limit=20"] for part in ("--set", setting)]
        found = hpcfed(threads, "evaluate", str(base), "--json", *chosen)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(found)
    return next(iter(json.loads(file.read_text()).values()))  # type: ignore[no-any-return]


def trained(name: str, method: str, lr: float, seed: int, rounds: int, args: argparse.Namespace) -> dict[str, Any]:
    """summary.json of a run."""
    bench, folder = BENCHES[name], args.out / name / f"{method}-{lr:g}-{seed}-{rounds}"
    if (
        not (folder / "summary.json").exists()
        or json.loads((folder / "summary.json").read_text())["status"] != "finished"
    ):
        chosen = [
            *settings_of(name, args.data),
            f"task.dev={bench.dev}",
            f"clients.batch={bench.batch}",
            f"algorithm.name={method}",
            f"algorithm.lr={lr:g}",
            f"seed={seed}",
            f"rounds={rounds}",
            f"eval_every={max(1, rounds // 6)}",
            "keep_best=true",
        ]
        line = [part for setting in chosen for part in ("--set", setting)]
        hpcfed(args.threads, "train", str(args.out / "recipe.toml"), "--out", str(folder), "--quiet", "--resume", *line)
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    print(f"{folder.relative_to(args.out)}: {found['metric_before']:.3f} -> {found['metric_after']:.3f}", flush=True)
    return found


def tuned(name: str, method: str, args: argparse.Namespace) -> float:
    """The step size with the lowest loss on dev."""
    losses = {}
    for lr in LRS[method]:
        found = trained(name, method, lr, 0, args.rounds // 5, args)
        losses[lr] = dev_loss(args.out / name / f"{method}-{lr:g}-0-{args.rounds // 5}", found["kept_round"])
    return min(losses, key=lambda lr: losses[lr])


def dev_loss(folder: Path, t: int) -> float:
    """The loss on dev after round t."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return next(float(line["loss"]) for line in lines if line.get("split") == "dev" and line["t"] == t)


def zero_shot_table(scores: dict[str, dict[str, Any]]) -> str:
    """A line a task."""
    lines = ["| task | examples | metric | as it is | majority | loss |", "|---|---|---|---|---|---|"]
    for name, score in scores.items():
        values = ", ".join(f"{metric} {100 * value:.1f}" for metric, value in score["values"].items())
        majority = "-" if score.get("majority") is None else f"{100 * score['majority']:.1f}"
        figures = f"**{100 * score['value']:.1f}** | {majority} | {score['loss']:.3f}"
        lines.append(f"| {name} | {score['examples']} | {values} | {figures} |")
    return "\n".join(lines)


def trained_table(rows: list[tuple[str, str, float, list[dict[str, Any]]]]) -> str:
    """A line a task and method: mean and range over the seeds."""
    lines = ["| task | method | lr | seeds | before | after | loss before | loss after | bits up | s a round |"]
    lines.append("|---" * 10 + "|")
    for name, method, lr, runs in rows:
        after = [100 * run["metric_after"] for run in runs]
        spread = f" ({min(after):.1f} to {max(after):.1f})" if len(after) > 1 else ""
        before, was, loss = (
            np.mean([run[key] for run in runs]) for key in ("metric_before", "loss_before", "loss_after")
        )
        bits = runs[0]["uplink_bits_per_client_round"] * runs[0]["rounds"]
        seconds = np.median([run["seconds_per_round"] for run in runs])
        lines.append(
            f"| {name} | {method} | {lr:g} | {len(runs)} | {100 * before:.1f} | **{np.mean(after):.1f}**{spread} | "
            f"{was:.3f} | {loss:.3f} | {bits:,} | {seconds:.2f} |"
        )
    return "\n".join(lines)


def put(mark: str, text: str) -> None:
    """Into the marked place of docs/RESULTS.md."""
    page = DOCS / "RESULTS.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(f"<!-- {mark}: written by benchmarks/tasks.py -->\n")
    _, end, after = rest.partition(f"<!-- {mark}: end -->")
    if not end:
        raise SystemExit(f"{page}: has no place marked {mark}")
    start = f"<!-- {mark}: written by benchmarks/tasks.py -->\n"
    page.write_text(f"{before}{start}{text}\n{end}{after}", encoding="utf-8")


def arguments(line: list[str] | None = None) -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", type=Path, help="folder of a causal language model")
    parser.add_argument("--data", type=Path, help="folder with a folder a task")
    parser.add_argument("--out", type=Path, default=Path("runs/tasks"))
    parser.add_argument("--tasks", nargs="+", choices=BENCHES, default=list(BENCHES))
    parser.add_argument("--methods", nargs="+", choices=LRS, default=list(LRS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--rounds", type=int, default=600)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--report", action="store_true", help="write the tables into docs/RESULTS.md")
    return parser.parse_args(line)


def main() -> None:
    """Run what is missing, print the tables."""
    args = arguments()
    base = recipe(args.model, args.out) if args.model else args.out / "recipe.toml"
    scores = {name: zero_shot(name, base, args.data, args.out, args.threads) for name in args.tasks}
    print(zero_shot_table(scores), flush=True)
    rows = []
    for name in args.tasks:
        for method in args.methods if BENCHES[name].batch else ():
            lr = tuned(name, method, args)
            runs = [trained(name, method, lr, seed, args.rounds, args) for seed in args.seeds]
            rows.append((name, method, lr, runs))
            print(trained_table(rows), flush=True)
    if args.report:
        put("zero-shot", zero_shot_table(scores))
        put("trained", trained_table(rows))


if __name__ == "__main__":
    main()
