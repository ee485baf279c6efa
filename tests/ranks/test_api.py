"""hpcfed's functions called on every rank of a launch, as a user's own script does: several runs in one process."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

import hpcfed
from tests.support.digits import tiny
from tests.support.harness import Launcher, launch

RUNS = {
    "feedsign": ["clients.group=1"],
    "fedavg": ["clients.group=1", "algorithm.name=fedavg", "save_every=2"],
    "other": ["clients.group=1", "seed=1"],
}


def main(folder: Path, rank: str) -> None:
    """The script: all runs one after the other; what this rank got of each, into a file of its own."""
    found = dict[str, Any]()
    for name, more in RUNS.items():
        rounds, scores = list[dict[str, Any]](), list[dict[str, Any]]()
        result = hpcfed.train(tiny(*more), folder / name, quiet=True, on_round=rounds.append, on_score=scores.append)
        loss = hpcfed.evaluate(result.folder)["test"].loss
        weights = [p.double().sum().item() for p in result.model.parameters()] if result.model else []
        found[name] = [result.summary, weights, loss, [line["t"] for line in rounds], [line["t"] for line in scores]]
    (folder / f"rank{rank}").write_text(json.dumps(found))


@pytest.mark.parametrize(("launcher", "n"), [("torchrun", 2), ("mpirun", 3)])
def test_a_script_trains_again_and_again(launcher: Launcher, n: int, tmp_path: Path) -> None:
    done = launch(launcher, n, ["-m", __spec__.name, str(tmp_path)])
    assert done.code == 0, done.output
    ranks = [json.loads((tmp_path / f"rank{i}").read_text()) for i in range(n)]
    for name, more in RUNS.items():
        alone = hpcfed.train(tiny(*more), tmp_path / f"{name}-alone", quiet=True)
        for i, (summary, weights, loss, rounds, scores) in enumerate(found[name] for found in ranks):
            assert summary == json.loads((tmp_path / name / "summary.json").read_text())
            assert summary["fingerprint"] == alone.summary["fingerprint"]
            assert weights == ranks[0][name][1] != []
            assert loss == summary["loss_after"]
            assert (rounds, scores) == ((list(range(1, 7)), [0, 3, 6]) if i == 0 else ([], []))


if __name__ == "__main__":
    main(Path(sys.argv[1]), os.environ.get("RANK") or os.environ["OMPI_COMM_WORLD_RANK"])
