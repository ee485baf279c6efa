"""Five clients with files of their own: the files, the manifest that names them, a tiny model and data to evaluate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hpcfed.config import load_recipe
from tests.support.command import settings
from tests.support.small import save_tiny_folder, sentences, tiny_sst2, write_jsonl

SIZES = (3, 9, 5, 4, 12)


def make_place(folder: Path) -> Path:
    """Model, evaluation data, a manifest of five clients, and all their sentences in one file."""
    save_tiny_folder(folder, "opt")
    tiny_sst2(folder)
    held = [sentences(n, 100 + k) for k, n in enumerate(SIZES)]
    for k, rows in enumerate(held):
        write_jsonl(folder / "clients" / f"{k}.jsonl", rows)
    write_jsonl(folder / "whole" / "train.jsonl", [row for rows in held for row in rows])
    write_jsonl(folder / "whole" / "validation.jsonl", sentences(32, 1))
    lines(folder / "m.jsonl", [{"id": f"c{k}", "data": f"clients/{k}.jsonl"} for k in range(len(SIZES))])
    return folder


def lines(file: Path, entries: list[Any]) -> Path:
    file.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return file


def given(place: Path, manifest: Path | str | None = "m.jsonl", **values: Any) -> list[str]:
    """--set options: the tiny model and data, two clients in a group."""
    fixed = {"model__name": place / "opt-causal-lm-0", "task__data": place / "sst2", "rounds": 3, "clients__group": 2}
    named = {} if manifest is None else {"clients__manifest": place / manifest}
    return settings(**(fixed | {"clients__batch": 4, "mesh__threads": 1} | named | values))


def recipe(place: Path, manifest: Path | str | None = "m.jsonl", **values: Any) -> Any:
    return load_recipe("sst2-opt-125m", given(place, manifest, **values)[1::2])
