"""Many clients on few rows: sums that fit their lane, whoever hosts whom, and what a round of them sends."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from hpcfed.clients import Pool, partition
from hpcfed.clients.partition import Deal
from hpcfed.config import load_recipe
from hpcfed.tasks import Examples
from hpcfed.train.build import assemble
from hpcfed.train.problem import build_problem
from hpcfed.train.round import State
from hpcfed.transport.base import Transport
from hpcfed.transport.choose import choose
from hpcfed.transport.launch import Launch
from hpcfed.transport.mesh import MeshShape
from tests.support.harness import run_ranks

HELD, ROUNDS = 2, 3


def rounds(transport: Transport, clients: int, group: int) -> list[Any]:
    """Fingerprint, sums and bytes of rounds in which all clients vote; their data are the digits, over and over."""
    recipe = load_recipe("digits", [f"clients.group={group}", "clients.batch=1", "mesh.threads=1"])
    problem = build_problem(recipe)
    n, real = HELD * clients, problem.task.train
    columns = {name: np.resize(column, (n, *column.shape[1:])) for name, column in real.columns.items()}
    problem.task = replace(problem.task, train=Examples(columns, np.resize(real.labels, n)))
    pool = Pool(partition("iid", Deal(problem.task.train.labels, clients)), clients, group, 1, recipe.seed)
    run = assemble(recipe, transport, MeshShape(transport.rows, 1), problem, pool)
    outcomes = [run.round(t, State()) for t in range(ROUNDS)]
    sums = [int(o.sums[0]) for o in outcomes if o.sums is not None]
    return [problem.weights.fingerprint(), sums, [o.payload_bytes for o in outcomes]]


def several(transport: Transport) -> list[list[Any]]:
    return [rounds(transport, clients, group) for clients, group in ((127, 10), (128, 10), (1000, 100))]


def test_a_thousand_clients_on_four_rows() -> None:
    alone = several(choose(Launch()))
    for found in run_ranks(4, several):
        for (fingerprint, sums, sent), (right, right_sums, _) in zip(found, alone, strict=True):
            assert fingerprint == right and sums == right_sums
            assert len(sums) == len(sent) == ROUNDS
        # sum, votes cast and stop flags: an int8 each up to 127 voters, an int32 each from 128 on
        assert [sent for _, _, sent in found] == [[3] * ROUNDS, [12] * ROUNDS, [12] * ROUNDS]
    assert max(abs(total) for total in alone[2][1]) > 127  # in int8 these would have wrapped
