"""What can be read from a run folder afterwards: its files by name, summary and metrics, several runs side by side.

Files    recipe.toml (resolved)  env.json  partition.json (who holds what)  metrics.jsonl (a line a logged round)
         summary.json  journal  orbit.safetensors; methods without an orbit have weights.safetensors instead. While a
         run is alive also `lock`, which holds its pid and host.
"""

from __future__ import annotations

import contextlib
import fnmatch
import glob
import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config import validate
from ..errors import ConfigError, RunFolderError
from ..orbit import JOURNAL, WEIGHTS

RECIPE, ENV, METRICS, SUMMARY = "recipe.toml", "env.json", "metrics.jsonl", "summary.json"
PARTITION, LOCK = "partition.json", "lock"
#: Settings that a resumed run may change: the result does not depend on them.
MAY_CHANGE = (
    "eval_every", "eval_batch", "log_every", "check_every", "save_every", "tensorboard", "mesh.transport", "mesh.check",
    "mesh.graphs", "algorithm.ballot", "algorithm.walk_copy",
)  # fmt: skip
#: Settings that may be paths.
PATHS = (("model", "name"), ("task", "data"), ("clients", "manifest"))
ENDED = ("finished", "budget spent")
STATUSES = (*ENDED, "interrupted")
REQUIRED_KEYS = (
    "algorithm", "model", "task", "rounds", "clients", "rows", "shards", "metric_name", "metric_before",
    "metric_after", "loss_before", "loss_after", "uplink_bits_per_client_round", "wire_payload_bytes",
    "fingerprint_base", "fingerprint", "orbit_bytes", "seconds", "seconds_per_round", "peak_memory_bytes", "status",
)  # fmt: skip
TEXTS = ("algorithm", "model", "task", "metric_name", "fingerprint_base", "fingerprint", "status")


def read_summary(path: str | Path) -> dict[str, Any]:
    """summary.json of a run folder with all REQUIRED_KEYS; RunFolderError says what is missing."""
    path = Path(path)
    if not path.is_dir():
        raise RunFolderError(f"{path}: no such run folder")
    if not (path / SUMMARY).exists():
        if (path / JOURNAL).exists() or (path / WEIGHTS).exists():
            raise RunFolderError(f"{path}: no {SUMMARY}: the run is still going on, or was killed (then use --resume)")
        raise RunFolderError(f"{path}: not a run folder (no {SUMMARY} in it)")
    summary = read_json(path / SUMMARY)
    if missing := [key for key in REQUIRED_KEYS if key not in summary]:
        raise RunFolderError(f"{path / SUMMARY}: lacks {', '.join(missing)}")
    for key in REQUIRED_KEYS:
        kind, word = (str, "text") if key in TEXTS else (int | float, "a number")
        if summary[key] is not None and not isinstance(summary[key], kind):
            raise RunFolderError(f"{path / SUMMARY}: {key}={summary[key]!r:.60} is not {word}")
    if "scored_at" not in summary:  # an older run's
        scored = [r["t"] for r in read_metrics(path) if "split" in r and r["t"] <= (summary["rounds"] or 0)]
        last = max(scored, default=0) or None
        summary["scored_at"] = last if summary["status"] == "interrupted" else summary["rounds"]
        if summary["scored_at"] is None and summary["rounds"]:
            summary |= {"metric_after": None, "loss_after": None}
    return summary


def wants_more(summary: Mapping[str, Any], rounds: int | None) -> bool:
    """Whether a run that has finished so would go on, if it were to have so many rounds."""
    done = summary.get("rounds")
    return summary.get("status") == "finished" and isinstance(done, int) and rounds is not None and rounds > done


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The lines of a run folder's metrics.jsonl, oldest first; a line torn by a crash is left out."""
    file = Path(path) / METRICS
    records = []
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.exists() else []
    except OSError as error:
        raise RunFolderError(f"{file}: cannot read it: {error.strerror}") from None
    for line in lines:
        with contextlib.suppress(ValueError, RecursionError):
            record = json.loads(line)
            if isinstance(record, dict) and isinstance(record.get("t"), int):
                records.append(record)
    return records


def comparison(paths: Iterable[str | Path]) -> list[dict[str, Any]]:
    """One row a run folder: run, algorithm, model, metric and the figures below, each None where it is unknown.

    before, after: the metric, a fraction; the latter after `scored_at` of the `rounds` that were run.  status.
    bits, down: up and down per client and round.  uplink_bits: of a client that took part in every round.
    wire_bytes: payload handed to collectives.  seconds.  memory: peak bytes.
    Raises RunFolderError.
    """
    folders = [Path(path) for path in paths]
    names = [path.resolve().name for path in folders]
    rows = []
    for path, name in zip(folders, names, strict=True):
        summary = read_summary(path)
        # A method without clients sends 0 bits, which would look like the best of all.
        bits, rounds = summary["uplink_bits_per_client_round"] or None, summary["rounds"]
        rows.append(
            {
                "run": name if names.count(name) == 1 else str(path),
                "algorithm": summary["algorithm"],
                "model": summary["model"],
                "metric": summary["metric_name"],
                "before": summary["metric_before"],
                "after": summary["metric_after"],
                "scored_at": summary["scored_at"],
                "rounds": rounds,
                "status": summary["status"],
                "bits": bits,
                "down": summary.get("downlink_bits_per_client_round") or None,
                "uplink_bits": None if bits is None or rounds is None else bits * rounds,
                "wire_bytes": summary["wire_payload_bytes"],
                "seconds": summary["seconds"],
                "memory": summary["peak_memory_bytes"],
            }
        )
    return rows


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; RunFolderError if there is none."""
    try:
        fields = json.loads(path.read_bytes())
    except OSError as error:
        raise RunFolderError(f"{path}: cannot read it: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise RunFolderError(f"{path}: damaged, not valid JSON ({error})") from None
    if not isinstance(fields, dict):
        raise RunFolderError(f"{path}: damaged, not a JSON object")
    return fields


def paths_of(path: str | Path) -> tuple[list[str], list[str]]:
    """Overrides by which a run's recipe names the files that the run had, wherever it is read; and notes for the user.

    A recipe's relative paths are relative to the working folder. A path that is gone from there stays as it is, and a
    note says so if there is something under that name here.
    """
    overrides, notes = list[str](), list[str]()
    try:
        recipe, before = tomllib.loads((Path(path) / RECIPE).read_text("utf-8")), read_json(Path(path) / ENV)["folder"]
    except (OSError, ValueError, KeyError, RunFolderError):  # a run of an older version, or a recipe alone
        return [], []
    if not isinstance(before, str) or Path(before) == Path.cwd():
        return [], []
    for section, setting in PATHS:
        name = recipe.get(section, {}).get(setting)
        if not isinstance(name, str) or name[:1] in ("/", "~"):
            continue
        if _there(then := Path(before, name)):
            overrides.append(f"{section}.{setting}={json.dumps(str(then), ensure_ascii=False)}")
        elif _there(Path(name)):
            notes.append(
                f"{section}.{setting}={name!r} is no longer in {before}, where {path} ran; read from {Path.cwd()}"
            )
    return overrides, notes


def _there(path: Path) -> bool:
    return path.exists() or bool(glob.glob(str(path)))  # noqa: PTH207  Path.glob takes no absolute pattern


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _settings(recipe_toml: str) -> dict[str, Any]:
    """Every setting by its dotted key, as the recipe resolves today: an older version wrote others into recipe.toml."""
    raw = tomllib.loads(recipe_toml)
    with contextlib.suppress(ConfigError):
        raw = validate(raw).model_dump(exclude_none=True)
    return _flat(raw)


def recipe_differences(old_toml: str, new_toml: str, allow: Sequence[str] = ()) -> list[str]:
    """ "key: old -> new" for every setting that differs and matches no pattern of `allow`."""
    old, new = _settings(old_toml), _settings(new_toml)
    # By their text: 1 equals 1.0 in Python, but clients.per_round = 1 is one client and 1.0 is all of them.
    keys = sorted(key for key in old.keys() | new.keys() if repr(old.get(key)) != repr(new.get(key)))
    return [
        f"{key}: {old.get(key, 'unset')!r} -> {new.get(key, 'unset')!r}"
        for key in keys
        if not any(fnmatch.fnmatchcase(key, pattern) for pattern in allow)
    ]
