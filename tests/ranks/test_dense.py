"""FedSGD and FedAvg on 1, 2 and 3 rows: the same weights to the bit, also where clients attack or abstain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from hpcfed.clients import Attack, Pool
from hpcfed.clock import Clock
from hpcfed.config import load_recipe
from hpcfed.errors import DivergedError
from hpcfed.first_order.round import FirstOrder
from hpcfed.probe.hosted import Hosted
from hpcfed.tasks import Batch
from hpcfed.train.problem import Problem, build_problem
from hpcfed.transport.base import Transport
from hpcfed.transport.choose import choose
from hpcfed.transport.launch import Launch
from hpcfed.transport.mesh import MeshShape
from tests.support.harness import run_ranks

TINY = ["mesh.threads=1", "clients.count=7", "clients.batch=16", "clients.group=2", "algorithm.lr=0.05"]
ADAM = ["algorithm.name=fedavg", "algorithm.optimizer=Adam", "algorithm.lr=1e-3"]
MOMENTUM = ["algorithm.name=fedavg", "algorithm.optimizer_options.momentum=0.9", "algorithm.local_epochs=2"]
ATTACK = ["attack.clients=[0,6]", "attack.kind=random", "attack.scale=0.01"]

#: Settings on top of TINY, and clients whose loss is not finite.
VARIANTS: dict[str, tuple[list[str], list[int]]] = {
    "fedsgd": (["algorithm.name=fedsgd"], []),
    "fedsgd, a row without clients": (["algorithm.name=fedsgd", "clients.per_round=1"], []),
    "fedsgd, micro-batches": (["algorithm.name=fedsgd", "clients.max_batch_examples=5"], []),
    "fedsgd, two abstain": (["algorithm.name=fedsgd", "model.dtype=bfloat16"], [0, 6]),
    "fedsgd, attacked": (["algorithm.name=fedsgd", *ATTACK], []),
    "fedavg": (ADAM, []),
    "fedavg, one abstains": ([*MOMENTUM, "model.dtype=float16", "clients.per_round=0.8"], [2]),
    "fedavg, last layer": ([*MOMENTUM, 'algorithm.train_only=["classifier.*"]'], []),
}


class Unlucky(Hosted):
    """Marks the batches of the clients in `bad`."""

    bad: frozenset[int] = frozenset()

    def batches(self, client: int, indices: np.ndarray) -> Iterator[Batch]:
        for batch in super().batches(client, indices):
            yield replace(batch, extra=batch.extra | {"bad": torch.tensor(True)}) if client in self.bad else batch


def scored(problem: Problem) -> Problem:
    """The problem, in which a marked batch has NaN for scores."""
    form = problem.task.form
    scores = form.scores
    nan = replace(form, scores=lambda logits, b: scores(logits, b) * (torch.nan if "bad" in b.extra else 1.0))
    return replace(problem, task=replace(problem.task, form=nan))


def method(transport: Transport, settings: list[str], bad: list[int]) -> tuple[FirstOrder, Problem]:
    recipe = load_recipe("digits", [*TINY, *settings])
    c, problem = recipe.clients, scored(build_problem(recipe))
    # Unequal shares, so that the weights n_k / n have many digits.
    parts = np.split(np.arange(200), [7, 20, 50, 55, 100, 130])
    pool = Pool(parts, c.cohort, c.group, c.batch, recipe.seed)
    attack = Attack(recipe.attack, 0.0, c.count, recipe.seed, transport)
    groups = MeshShape(transport.rows).groups_of_row(transport.row.index, pool.n_groups)
    hosted = Unlucky(pool, problem.task, groups, c, attack.flips)
    hosted.bad = frozenset(bad)
    return FirstOrder(recipe, problem.weights, problem.forward, hosted, attack, transport, Clock()), problem


def rounds(transport: Transport) -> dict[str, Any]:
    """Of every variant the fingerprint, and how many abstained and asked to stop a round; what divergence says."""
    found: dict[str, Any] = {}
    for name, (settings, bad) in VARIANTS.items():
        run, problem = method(transport, settings, bad)
        before, seen = problem.weights.fingerprint(), []
        for t in range(2):
            outcome = run.round(t, 0.01 if "fedsgd" in name else 1e-3, stop=transport.row.index == t)
            sent = 8 * (problem.weights.numel + 3)
            traffic = (sent, -(-sent // 2**26)) if transport.rows > 1 else (0, 0)
            assert (outcome.payload_bytes, outcome.collectives) == traffic, (outcome, traffic)
            seen.append([outcome.abstained, outcome.stop])
        assert problem.weights.fingerprint() != before
        found[name] = [problem.weights.fingerprint(), seen]
    run, problem = method(transport, ["algorithm.name=fedsgd"], list(range(7)))
    before = problem.weights.fingerprint()
    try:
        run.round(0, 0.01, False)
    except DivergedError as e:
        assert problem.weights.fingerprint() == before
        found["all abstain"] = str(e)
    return found


def test_the_weights_do_not_depend_on_the_rows() -> None:
    alone = rounds(choose(Launch()))
    assert alone["fedsgd"][1] == [[0, 1], [0, 0]] and alone["fedsgd, two abstain"][1][0][0] == 2
    assert alone["fedavg, one abstains"][1][0][0] + alone["fedavg, one abstains"][1][1][0] > 0
    assert alone["all abstain"].startswith("round 0: no client's loss")
    assert len({fingerprint for fingerprint, _ in list(alone.values())[:-1]}) == len(VARIANTS)
    for n in (2, 3):
        for found in run_ranks(n, rounds, timeout=120):
            assert found.pop("all abstain") == alone["all abstain"]
            for name, (fingerprint, seen) in found.items():
                assert fingerprint == alone[name][0], (n, name)
                assert [abstained for abstained, _ in seen] == [abstained for abstained, _ in alone[name][1]]
                assert [stops for _, stops in seen] == [1, 1]
