"""Real rows of which one has more to do: the others wait, and it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hpcfed.clock import SHARES, shares
from hpcfed.config import load_recipe
from hpcfed.runs.folder import RunFolder
from hpcfed.runs.read import read_metrics
from hpcfed.runs.record import FolderRecord, Record
from hpcfed.train.build import build_together
from hpcfed.train.loop import run_all_rounds
from hpcfed.train.round import State
from hpcfed.transport.base import Transport
from tests.support.harness import run_ranks

ROUNDS = 20
#: Row 0 hosts a group of twenty clients, row 1 one of a single client.
UNEVEN = [f"rounds={ROUNDS}", "clients.count=21", "clients.group=20", "clients.batch=16", "check_every=8"]


def uneven(transport: Transport, folder: str) -> list[Any]:
    """Shares of every row; what this row spent; the summary's time split of a whole run."""
    recipe = load_recipe("digits", UNEVEN)
    run = build_together(recipe, transport)
    for t in range(ROUNDS):
        with run.clock.round():
            run.round(t, State())
    spent = run.clock.take()
    everyone = np.stack([np.frombuffer(raw).reshape(spent.shape) for raw in transport.all_gather(spent.tobytes())])
    run = build_together(recipe, transport)
    run.record = FolderRecord(RunFolder.create(folder, "", {}), quiet=True) if transport.row.index == 0 else Record()
    summary = run_all_rounds(run)
    return [shares(everyone).tolist(), spent.sum(0).tolist(), summary]


def test_the_row_with_more_clients_is_waited_for(tmp_path: Path) -> None:
    results = run_ranks(2, uneven, str(tmp_path))
    found = np.array(results[0][0])
    assert results[1][0] == results[0][0] and (found >= 0).all()
    forward, waiting = found[:, SHARES.index("forward")], found[:, SHARES.index("waiting")]
    assert forward[0] > forward[1] and waiting[1] > waiting[0]
    np.testing.assert_allclose(found.sum(1), [sum(spent) for _, spent, _ in results], rtol=1e-9)
    # Rows leave a collective together, so that their rounds, of which each says how long they were, take equally long.
    told = [record for record in read_metrics(tmp_path) if "timed" in record]
    assert [record["t"] for record in told] == [8, 16, 20] and [record["timed"] for record in told] == [8, 8, 4]
    assert all(record["rows"] == 2 and set(record["time"]) == set(SHARES) for record in told)
    assert all(min(record["time"].values()) >= 0 for record in told)
    assert sum(record["slowest_row"] == 0 for record in told) >= 2
    summary = results[0][2]
    assert summary["time_split"].keys() == dict.fromkeys(SHARES).keys()
    rounds = [record["time"] for record in read_metrics(tmp_path) if "wire_payload_bytes" in record]
    assert len(rounds) == ROUNDS and abs(sum(map(sum, map(dict.values, rounds))) - summary["seconds"]) < 1e-3
