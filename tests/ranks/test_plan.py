"""What a plan says of bytes and of who hosts whom, against rounds that were really run."""

from __future__ import annotations

from typing import Any

from hpcfed.config import Recipe, load_recipe
from hpcfed.plan.plan import make_plan
from hpcfed.train.build import build_run
from hpcfed.train.round import State
from hpcfed.transport.base import Transport
from tests.support.family_checks import FAMILY, TINY
from tests.support.harness import run_ranks

#: Groups of two and five clients: of three rows, one hosts a single client.
VARIANTS = {name: settings for name, settings in FAMILY.items() if "epoch" not in name} | {
    "bits": ["algorithm.ballot=bits", "algorithm.directions=3"],
    "three directions": ["algorithm.directions=3"],
    "central": ["privacy.mechanism=central", "privacy.epsilon=1", "algorithm.directions=2"],
}


def recipe(name: str) -> Recipe:
    return load_recipe("digits", [*TINY, "clients.batch=6", "clients.count=5", "mesh.threads=1", *VARIANTS[name]])


def sent(transport: Transport, names: list[str]) -> dict[str, list[Any]]:
    """Bytes of a round that was run, and what the method needs a client."""
    found = {}
    for name in names:
        run = build_run(recipe(name), transport)
        outcome = run.round(0, State())
        found[name] = [outcome.payload_bytes, *run.bits]
    return found


def test_bytes_of_a_round_are_those_of_a_run() -> None:
    plans = {name: make_plan(recipe(name)) for name in VARIANTS}
    for found in run_ranks(3, sent, list(VARIANTS)):
        assert found == {name: [plan.payload(3), plan.up, plan.down] for name, plan in plans.items()}
    assert {plan.payload(1) for plan in plans.values()} == {0}
