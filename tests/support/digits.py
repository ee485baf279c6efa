"""Runs of the shipped digits: a tiny recipe, what a run left behind, their base model with one weight changed."""

from __future__ import annotations

import json
import shutil
from importlib import resources
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from hpcfed.config import Recipe, load_recipe

SHIPPED = Path(str(resources.files("hpcfed") / "recipes" / "digits"))
#: Four clients, six rounds, an evaluation before, in the middle and after.
TINY = ["rounds=6", "clients.count=4", "clients.batch=4", "eval_every=3", "task.eval_limit=40"]


def tiny(*more: str) -> Recipe:
    """The recipe `digits` in a quarter of a second, with further overrides."""
    return load_recipe("digits", [*TINY, *more])


def summary(run: Path) -> dict:
    return json.loads((run / "summary.json").read_text())


def lines(run: Path) -> list[dict[str, Any]]:
    """What metrics.jsonl says."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def changed_base(folder: Path) -> Path:
    """The shipped model with one weight changed."""
    shutil.copytree(SHIPPED, folder)
    weights = load_file(folder / "model.safetensors")
    name = sorted(weights)[0]
    weights[name].view(-1)[0] += 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
