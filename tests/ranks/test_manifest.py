"""Clients with files of their own on two rows: the run of one row, though no row sees the other's files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from hpcfed.config import load_recipe
from hpcfed.errors import ConfigError
from hpcfed.train.build import build_together
from hpcfed.train.meet import Meeting
from hpcfed.train.start import run_recipe
from hpcfed.transport.base import Transport
from hpcfed.transport.choose import choose
from hpcfed.transport.launch import Launch, discover
from tests.support.harness import run_ranks
from tests.support.small import save_tiny_folder, sentences, tiny_sst2, write_jsonl

SIZES = (3, 9, 5, 4, 12, 2, 6)  # groups of two: row 0 of two hosts the first four
METHODS = {
    "feedsign": ["rounds=12", "algorithm.lr=1e-2", "clients.per_round=5"],
    "fedkseed": ["algorithm.name=fedkseed", "algorithm.pool_size=16", "algorithm.local_steps=2", "rounds=2"],
    "zo-fedavg": ["algorithm.name=zo-fedavg", "algorithm.local_steps=epoch", "rounds=2"],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same manifest in three folders, row0, row1 and all, of which each has the files that it may see."""
    folder = tmp_path_factory.mktemp("manifest")
    save_tiny_folder(folder, "opt")
    tiny_sst2(folder)
    for name, seen in {"row0": range(4), "row1": range(4, 7), "all": range(7)}.items():
        for k in seen:
            write_jsonl(folder / name / f"{k}.jsonl", sentences(SIZES[k], 100 + k))
        lines = [{"id": f"c{k}", "data": f"{k}.jsonl", "weight": k + 1} for k in range(7)]
        write_jsonl(folder / name / "clients.jsonl", lines)
    return folder


def runs(transport: Transport, folder: str, where: str, name: str) -> dict[str, list[Any]]:
    """Every method from the manifest in folder `where`: fingerprint, orbit and partition.json, the latter of row 0."""
    os.chdir(Path(folder, where))
    given = [f"model.name={folder}/opt-causal-lm-0", f"task.data={folder}/sst2", "clients.manifest=clients.jsonl"]
    given += ["clients.group=2", "clients.batch=4", "mesh.threads=1"]
    found = {}
    for method, more in METHODS.items():
        out = Path(folder, name, method)
        recipe = load_recipe("sst2-opt-125m", [*given, *more])
        summary = run_recipe(Meeting(recipe, transport, discover()), out, quiet=True).summary
        transport.barrier()
        told = json.loads((out / "partition.json").read_text())
        found[method] = [summary["fingerprint"], (out / "orbit.safetensors").read_bytes().hex(), told]
    return found


def on_two(transport: Transport, folder: str) -> list[Any]:
    """All methods, what a row holds, and what every row says when one row's file is gone, or its manifest another."""
    found = runs(transport, folder, f"row{transport.row.index}", "two")
    given = [f"model.name={folder}/opt-causal-lm-0", f"task.data={folder}/sst2", "clients.manifest=clients.jsonl"]
    recipe = load_recipe("sst2-opt-125m", [*given, "clients.group=2", "clients.batch=4"])
    held = len(build_together(recipe, transport).problem.task.train)
    said = []
    if transport.row.index == 1:
        Path("6.jsonl").rename("hidden")
    for _ in range(2):
        try:
            build_together(recipe, transport)
        except ConfigError as e:
            said.append(str(e))
        if transport.row.index == 1:
            Path("hidden").replace("6.jsonl") if not Path("6.jsonl").exists() else None
            text = Path("clients.jsonl").read_text()
            Path("clients.jsonl").write_text(text.replace('"weight": 7', '"weight": 8'))
    return [found, held, said]


def test_two_rows_are_one_run(place: Path) -> None:
    here = Path.cwd()
    try:
        alone = runs(choose(Launch()), str(place), "all", "one")
    finally:
        os.chdir(here)
    assert len({fingerprint for fingerprint, *_ in alone.values()}) == len(METHODS)
    results = run_ranks(2, on_two, str(place))
    for found, _, said in results:
        assert found == alone
        gone, other = said
        assert gone.startswith("row 1: clients.manifest='clients.jsonl', line 7 ('c6'): ") and "does not exist" in gone
        assert other.startswith("clients.manifest differs between rows (row 0: ")
    assert [held for _, held, _ in results] == [sum(SIZES[:4]), sum(SIZES[4:])]
