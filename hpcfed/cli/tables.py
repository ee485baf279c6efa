"""The tables that commands print: plain text at a fixed width where there is no terminal."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from rich import box
from rich.table import Table

from ..runs.progress import console, duration, percent

if TYPE_CHECKING:  # they import torch, which tables do without
    from ..orbit import Orbit
    from ..plan.plan import Plan, Shape
    from ..privacy import Forecast
    from ..tasks.evaluate import Score


def summary_table(summary: Mapping[str, Any], stream: TextIO | None = None) -> None:
    """Print the closing table of a run from its summary (all keys of runlog.REQUIRED_KEYS)."""
    s = summary
    name = s["metric_name"] or "metric"
    lines = {
        "status": f"{s['status']} after {count(s['rounds'])} rounds",
        "run": f"{s['algorithm']} on {s['task']}, {s['model']}",
        "clients": f"{count(s['clients'])} on {_many(s['rows'], 'row')} of {_many(s['shards'], 'shard')}",
        name: f"{percent(s['metric_before'])} -> {percent(s['metric_after'])}{_at(s)}{_beside(s, name)}",
        **_more_metrics(s),
        "loss": f"{_number(s['loss_before'], '.4f')} -> {_number(s['loss_after'], '.4f')}{_at(s)}",
        "uplink": f"{_many(s['uplink_bits_per_client_round'], 'bit')} a client and round",
        "wire payload": size(s["wire_payload_bytes"]),
        "orbit": size(s["orbit_bytes"]) if s["orbit_bytes"] is not None else "none: dense weights are saved instead",
        "time": f"{duration(s['seconds'])} ({_number(s['seconds_per_round'], '.4g')} s a round)",
        "peak memory": size(s["peak_memory_bytes"]),
        "fingerprint": s["fingerprint"] or "-",
    }
    if (kept := s.get("kept_round")) is not None:
        lines["kept"] = f"round {count(kept)} of {count(s['rounds'])}, of the lowest loss on dev"
    if spent := s.get("time_split"):
        whole = sum(spent.values()) or 1.0
        lines["time split"] = ", ".join(f"{part} {percent(seconds / whole)}" for part, seconds in spent.items())
    if abstentions := s.get("abstentions"):
        ids = s.get("abstainers") or []
        whose = ", ".join(map(str, ids[:10])) + (", ..." if len(ids) > 10 else "")
        lines["abstained"] = _many(abstentions, "ballot") + (
            f", of client{'s' * (len(ids) > 1)} {whose}" if ids else ""
        )
    if attackers := s.get("attack", {}).get("clients"):
        lines["attack"] = f"{s['attack']['kind']} by {_many(len(attackers), 'client')}"
    if p := s.get("privacy"):
        cost = f"epsilon {p['epsilon']:.4g} at delta {p['delta']:g}"
        lines["privacy"] = f"{cost} for {p['neighbours']}; trust {p['trusted']}"
    _print_pairs(lines, stream)


def _beside(s: Mapping[str, Any], metric: str) -> str:
    """What to compare an accuracy with."""
    majority = s.get("majority") if metric == "accuracy" else None
    return "" if majority is None else f" (majority {percent(majority)})"


def _more_metrics(s: Mapping[str, Any]) -> dict[str, str]:
    """Lines of the metrics after the main one, and of its values over clients; an older run has none."""
    before, after = s.get("metrics_before") or {}, s.get("metrics_after") or {}
    names = [name for name in {**before, **after} if name != s["metric_name"]]
    lines = {
        name: f"{percent(before.get(name))} -> {percent(after.get(name))}{_at(s)}{_beside(s, name)}" for name in names
    }
    for label, key in (("worst client", "worst"), ("spread", "spread")):
        was, is_now = s.get(f"{key}_before"), s.get(f"{key}_after")
        if (was, is_now) != (None, None):
            lines[label] = f"{percent(was)} -> {percent(is_now)}{_at(s)}"
    return lines


def _at(s: Mapping[str, Any]) -> str:
    """After which round it was evaluated last, where that is not where the run stands."""
    if s["metric_before"] is s["metric_after"] is None:
        return " (not evaluated)"
    at = s.get("scored_at", s["rounds"])
    return "" if at == s["rounds"] else " (not evaluated since)" if at is None else f" (after round {at:,})"


def orbit_table(orbit: Orbit, stream: TextIO | None = None) -> None:
    """Print what an orbit says about itself, then its notes."""
    h = orbit.header
    bits = h.width * (1 if h.payload == "signs" else 32)
    lines = {
        "file": str(orbit.path),
        "algorithm": f"{h.algorithm}, {_many(h.directions, 'direction')} a round, run seed {h.run_seed}",
        "rounds": count(orbit.rounds) + _kept(orbit),
        "decisions": f"{size(math.ceil(orbit.rounds * bits / 8))}, {_many(bits, 'bit')} a round",
        "base model": f"{h.base_model} ({h.kind}, {h.dtype})",
        "base fingerprint": h.base_fingerprint,
        "fingerprint": orbit.fingerprint or "- (a journal has none)",
        "layout": h.layout_hash,
        "trained": ", ".join(h.train_only) or "all parameters",
        "labels": ", ".join(h.labels) or "-",
        "lr": f"{h.lr:g}, {_shape(h.schedule)}",
        "directions": f"{h.distribution}, noise v{h.noise}",
        "rounding": h.rounding,
        "settings": ", ".join(f"{key} {value}" for key, value in h.settings.items()) or "-",
    }
    _print_pairs({label: _printable(value) for label, value in lines.items()}, stream)
    for note in orbit.notes:
        console(stream or sys.stdout, plain=True).print(_printable(note), soft_wrap=True)


def _kept(orbit: Orbit) -> str:
    """Of a sealed orbit that ends before its run did: where it ends."""
    if orbit.fingerprint is None or "kept" not in orbit.header.task:
        return ""
    return f" of {count(orbit.header.schedule['rounds'])}, to the {orbit.header.task['kept']}"


def _shape(schedule: Mapping[str, Any]) -> str:
    shape = str(schedule["name"])
    if shape != "constant":
        shape += f" to {schedule['final'] * 100:g} % over {_many(schedule['rounds'], 'round')}"
    return shape + (f", warmup over {_many(schedule['warmup'], 'round')}" if schedule["warmup"] else "")


def score_table(scores: Mapping[str, Score], stream: TextIO | None = None) -> None:
    """Print an evaluation: a line a split, a column a metric."""
    table = Table(box=box.SIMPLE)
    table.add_column("split")
    names = list(dict.fromkeys(name for score in scores.values() for name in score.values))
    columns = {"examples": [count(score.examples) for score in scores.values()]}
    for name in names:
        columns[name] = [percent(score.values.get(name)) for score in scores.values()]
        if name == "accuracy":
            columns["majority"] = [percent(score.majority) for score in scores.values()]
    columns["worst client"] = [percent(score.worst) for score in scores.values()]
    columns["spread"] = [percent(score.spread) for score in scores.values()]
    columns["loss"] = [f"{score.loss:.4f}" for score in scores.values()]
    columns = {name: column for name, column in columns.items() if set(column) != {"-"}}
    for heading in columns:
        table.add_column(heading, justify="right", overflow="fold")
    for split, *row in zip(scores, *columns.values(), strict=True):
        table.add_row(split, *row)
    _print(table, stream)


def score_json(scores: Mapping[str, Score]) -> str:
    """An evaluation as one JSON object: split -> Score.data(); a loss that is no number is null."""
    told = {split: score.data() for split, score in scores.items()}
    for score in told.values():
        score["loss"] = score["loss"] if math.isfinite(score["loss"]) else None
    return json.dumps(told, allow_nan=False)


def harness_table(scores: Mapping[str, Mapping[str, Any]], stream: TextIO | None = None) -> None:
    """Print what lm_eval's tasks say (train/harness.py): a line a metric."""
    table = Table(box=box.SIMPLE)
    table.add_column("task", overflow="fold")
    for heading in ("shots", "examples", "metric", "value", "stderr"):
        table.add_column(heading, justify="left" if heading == "metric" else "right", overflow="fold")
    for task, score in scores.items():
        for metric, found in score["metrics"].items():
            figures = (_number(found["value"], ".4f"), _number(found["stderr"], ".4f"))
            table.add_row(task, count(score["shots"]), count(score["examples"]), metric, *figures)
    _print(table, stream)


def comparison_table(rows: Sequence[Mapping[str, Any]], stream: TextIO | None = None) -> None:
    """Print the rows of runlog.comparison; what all of them share stands above the table."""
    common = [key for key in ("model", "metric") if len(rows) > 1 and len({row[key] for row in rows}) == 1]
    title = ", ".join(f"{key} {rows[0][key] or '-'}" for key in common)
    table = Table(box=box.SIMPLE, title=title or None, title_justify="left", title_style="")
    left = [key for key in ("run", "algorithm", "model", "metric") if key not in common]
    right = ("before", "after", "bits up", "bits down", "uplink", "wire", "time", "memory")
    for heading in left:
        table.add_column(heading, overflow="fold")
    for heading in right:
        table.add_column(heading, justify="right", overflow="fold")
    for row in rows:
        bits = row["uplink_bits"]
        table.add_row(
            *(str(row[key] or "-") + _unfinished(row) * (key == "run") for key in left),
            percent(row["before"]),
            percent(row["after"]) + _late(row),
            _number(row["bits"], ",.10g"),
            _number(row["down"], ",.10g"),
            size(None if bits is None else math.ceil(bits / 8)),
            size(row["wire_bytes"]),
            duration(row["seconds"]),
            size(row["memory"]),
        )
    _print(table, stream)


def _late(row: Mapping[str, Any]) -> str:
    at = row.get("scored_at")
    return "" if at is None or at == row["rounds"] else f" after round {at:,}"


def _unfinished(row: Mapping[str, Any]) -> str:
    return f" (interrupted after {count(row['rounds'])} rounds)" if row.get("status") == "interrupted" else ""


def privacy_table(
    forecasts: Mapping[str, Forecast],
    rounds: int,
    rate: float,
    delta: float,
    budget: float | None = None,
    stream: TextIO | None = None,
) -> None:
    """Print what privacy.forecast found and when it holds; rate: share of the clients that vote in a round."""
    table = Table(box=box.SIMPLE)
    table.add_column("cohorts")
    headings = ["rounds paid for", "epsilon a round", "total, basic", "total, tight"]
    for heading in headings + ([] if budget is None else [f"rounds within {budget:g}"]):
        table.add_column(heading, justify="right")
    names = {"public": "public: as in hpcfed", "secret": "secret: not so in hpcfed"} if rate < 1 else {"public": "all"}
    for key, name in names.items():
        f, about = forecasts[key], "about " * (rate < 1 and key == "public")
        figures = [f"{value:,.4f}" if value < 100 else f"{value:,.0f}" for value in (f.epsilon, f.basic, f.tight)]
        fit = [] if budget is None else [about + count(f.fit)]
        table.add_row(name, about + count(f.rounds), *figures, *fit)
    _print(table, stream)
    lines = {
        "run": f"{count(rounds)} rounds, {100 * rate:.4g} % of the clients in each, delta {delta:g}",
        "total": "all votes of one client together make no conclusion about it more than e^total times as likely "
        "(basic: never; tight: but for a chance of delta)",
        "neighbours": "two runs that differ in the votes of one client; a vote is +1, -1 or an abstention",
        "central": "trust row 0, the root: it sees the tally of each round. All others see the decided bits only",
        "local": "trust nobody: each client flips its own vote with probability "
        f"{1 / (1 + math.exp(forecasts['public'].epsilon)):.3g} (one direction a round)",
        "cohorts": "the run seed names who votes when, and every orbit names the seed. So a client pays for the rounds "
        "it votes in; above is the average client, summary.json of a run has the exact total of the one that voted "
        "most. Secret cohorts would cost every client a little in every round",
    }
    if rate == 1:
        del lines["cohorts"]
    _print_pairs(lines, stream)


def plan_table(
    plan: Plan, shapes: Sequence[Shape], speed: str, limit: int | None, stream: TextIO | None = None
) -> None:
    """Print what a run will take and on which meshes.  speed: what the time was computed from."""
    m, w = plan.memory, plan.work
    rows = max(shape.rows for shape in shapes if not shape.problem or all(other.problem for other in shapes))
    parts = {"weights": m.weights, "scratch": m.scratch, "kept": m.kept, "in main memory": m.host}
    parts |= {"activations": m.forward, "or update": m.update}
    needed = "" if limit is None else f"{plan.shards_needed(limit) or 'no number of them'} for {size(limit)} a rank"
    lines = {
        "model": f"{plan.recipe.model.name}, {count(plan.parameters)} parameters in {plan.recipe.model.dtype}"
        + ("" if plan.trained == plan.parameters else f", {count(plan.trained)} of them trained"),
        **({"shards needed": needed} if needed else {}),
        "forward pass": f"{_many(w.examples, 'example')} of {_many(plan.tokens, 'token')}, both sides at once",
        "memory, 1 shard": f"{size(m.round)} in the round: "
        + ", ".join(f"{name} {size(n)}" for name, n in parts.items() if n),
        "in evaluation": f"{size(m.always + m.evaluation)} (eval_batch={plan.recipe.eval_batch})",
        "a client sends": f"{_many(plan.up, 'bit')} a round and gets {_many(plan.down, 'bit')} "
        f"({plan.recipe.algorithm.name})",
        "a row sends": f"{count(plan.payload(rows))} bytes a round on {_many(rows, 'row')}",
        "orbit": "none: dense weights are saved instead"
        if plan.orbit is None
        else f"{size(plan.orbit)} after {count(plan.recipe.rounds)} rounds",
        "time": f"an estimate from {speed}; nothing for waiting, sums within a row, evaluation or start",
    }
    _print_pairs(lines, stream)
    table = Table(box=box.SIMPLE)
    for heading in ("shards", "rows", "memory a rank", "rounds/s", "run"):
        table.add_column(heading, justify="right")
    table.add_column("possible" if limit is None else f"possible with {size(limit)} a rank", overflow="fold")
    for s in shapes:
        figures = (size(s.memory), f"{s.rounds:.3g}", duration(plan.recipe.rounds / s.rounds))
        table.add_row(count(s.shards), count(s.rows), *figures, s.problem or "yes")
    _print(table, stream)
    for note in plan.notes:
        console(stream or sys.stdout, plain=True).print(f"  {note}", soft_wrap=True)


def count(number: int | None) -> str:
    """12345 as 12,345."""
    return "-" if number is None else f"{number:,}"


def size(nbytes: float | None) -> str:
    """Bytes in decimal units: 1250 as 1.25 kB."""
    if nbytes is None:
        return "-"
    value, units = float(nbytes), ["TB", "GB", "MB", "kB", "B"]
    while value >= 999.5 and len(units) > 1:
        value /= 1000
        units.pop()
    return f"{value:.3g} {units[-1]}"


def _many(number: float | None, thing: str) -> str:
    """1 as "1 thing", 2 as "2 things"."""
    return f"{_number(number, ',.10g')} {thing}{'s' * (number != 1)}"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _printable(text: str) -> str:
    """Control characters of a stranger's file would reach the terminal as commands."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _print_pairs(lines: Mapping[str, str], stream: TextIO | None) -> None:
    table = Table(box=box.SIMPLE, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in lines.items():
        table.add_row(label, value)
    _print(table, stream)


def _print(table: Table, stream: TextIO | None) -> None:
    console(stream or sys.stdout, plain=True).print(table)
