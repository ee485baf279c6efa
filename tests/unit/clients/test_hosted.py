"""Clients with files of their own: the same run as from one file, and what rows tell each other of theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given as whatever
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hpcfed.clients import Pool, partition_report
from hpcfed.clients.hosted import HostedPool, hosted_pool
from hpcfed.config.files import validate
from hpcfed.tasks.base import Examples
from hpcfed.train.build import assemble, build_run
from hpcfed.train.problem import build_problem
from hpcfed.train.round import State
from hpcfed.transport.mesh import MeshShape
from hpcfed.transport.solo import SoloTransport
from tests.support.command import hpcfed, ok, refused
from tests.support.manifests import SIZES, given, lines, make_place, recipe
from tests.support.small import sentences, write_jsonl


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model, evaluation data, a manifest of five clients, and all their sentences in one file."""
    return make_place(tmp_path_factory.mktemp("manifest"))


# --- the run ---------------------------------------------------------------------------------------------------------

ONE = {"algorithm__lr": 1e-2}
METHODS: list[dict[str, Any]] = [
    ONE | {"clients__per_round": 3},
    ONE | {"algorithm__name": "zo-fedavg", "algorithm__local_steps": "epoch"},
    ONE | {"algorithm__name": "fedkseed", "algorithm__pool_size": 16, "algorithm__local_steps": 3},
    ONE | {"algorithm__name": "fedsgd"},
]


@pytest.mark.parametrize("values", METHODS, ids=lambda values: values.get("algorithm__name", "feedsign"))
def test_the_same_run_as_from_one_file(place: Path, values: dict[str, Any]):
    """Against a pool whose clients' examples lie in one file, one client after the other."""
    run = build_run(recipe(place, **values), SoloTransport())
    whole = recipe(
        place, None, **(values | {"task__data": place / "whole", "clients__count": 5, "task__train_limit": 99})
    )
    problem, ends = build_problem(whole), np.cumsum(SIZES)
    parts = [np.arange(end - n, end) for n, end in zip(SIZES, ends, strict=True)]
    c = whole.clients
    other = assemble(whole, SoloTransport(), MeshShape(1), problem, Pool(parts, c.cohort, c.group, c.batch, whole.seed))
    assert run.header.settings == other.header.settings
    states = State(), State()
    for t in range(3):
        found = [r.round(t, state) for r, state in zip((run, other), states, strict=True)]
        assert found[0].loss == found[1].loss
    assert states[0].last == states[1].last
    assert run.problem.weights.fingerprint() == problem.weights.fingerprint() != run.header.base_fingerprint
    labels = problem.task.train.labels
    assert run.pool.report(labels, ["a", "b"]).data() == partition_report(parts, labels, ["a", "b"]).data()


def test_weights_weigh(place: Path, tmp_path: Path):
    def entries(weights: list[int] | None) -> Path:
        named = [{"id": f"c{k}", "data": str(place / f"clients/{k}.jsonl")} for k in range(5)]
        both = [e | {"weight": w} for e, w in zip(named, weights, strict=True)] if weights else named
        return lines(tmp_path / "m.jsonl", both)

    def ends(weights: list[int] | None) -> tuple[list[int], str]:
        run = build_run(recipe(place, entries(weights), **METHODS[2]), SoloTransport())
        run.round(0, State())
        return run.pool.sizes(0).tolist(), run.problem.weights.fingerprint()

    counted, far = ends(None), ends([1, 1, 1, 1, 500])
    assert counted[0] == list(SIZES) and far[0] == [1, 1, 1, 1, 500] and counted[1] != far[1]
    assert ends(list(SIZES)) == counted
    assert ends([2 * n for n in SIZES])[1] == counted[1]  # only ratios count


def test_a_changed_file_or_weight_is_noticed(place: Path, tmp_path: Path):
    write_jsonl(tmp_path / "a.jsonl", sentences(4, 1))
    write_jsonl(tmp_path / "b.jsonl", sentences(4, 2))
    file = lines(tmp_path / "m", [{"id": "a", "data": "a.jsonl"}, {"id": "b", "data": "b.jsonl"}])
    argv = ["train", "sst2-opt-125m", *given(place, file, clients__group=1), "--out", tmp_path / "run"]
    ok(*argv)
    told = ok("evaluate", tmp_path / "run")  # opens no client's file
    (tmp_path / "a.jsonl").rename(tmp_path / "gone.jsonl")
    assert ok("evaluate", tmp_path / "run").out == told.out
    write_jsonl(tmp_path / "a.jsonl", sentences(4, 3))
    (tmp_path / "run" / "summary.json").unlink()
    assert "the training data, or who holds which, changed since the run began" in refused(*argv, "--resume")
    (tmp_path / "gone.jsonl").replace(tmp_path / "a.jsonl")
    named = file.read_bytes()
    lines(file, [{"id": "a", "data": "a.jsonl", "weight": 4}, {"id": "b", "data": "b.jsonl", "weight": 5}])
    assert "the training data, or who holds which, changed since the run began" in refused(*argv, "--resume")
    file.write_bytes(named)
    assert hpcfed(*argv, "--resume").code == 0


# --- the pool --------------------------------------------------------------------------------------------------------

NOTHING = Examples({}, np.zeros(0, np.int64))  # whose digest is not asked for


def test_a_private_pool_tells_no_numbers():
    raw = {"rounds": 1, "model": {"name": "m"}, "task": {"name": "t"}, "algorithm": {"lr": 1}}
    recipe = validate(raw | {"clients": {"count": 3, "manifest": "m", "partition": "manifest"}})
    held = [(np.array([2, 0]), "0" * 32), (np.array([1, 5]), "1" * 32), (np.array([0, 1]), "2" * 32)]
    sent = []

    class Ear(SoloTransport):
        def all_gather(self, data: bytes) -> list[bytes]:
            sent.append(len(data))
            return super().all_gather(data)

    private = hosted_pool(Ear(), recipe, range(3), held, None, may_tell=False)
    told = hosted_pool(Ear(), recipe, range(3), held, None, may_tell=True)
    assert sent == [48, 96] and private.digest(NOTHING) == told.digest(NOTHING)
    assert [part.tolist() for part in private.parts] == [[0, 1], [2, 3, 4, 5, 6, 7], [8]]
    assert told.sizes(0).tolist() == [2, 6, 1] and told.most_steps() == 1
    weighed = hosted_pool(Ear(), recipe, range(3), held, [5, 6, 7], may_tell=True)
    assert weighed.digest(NOTHING) != told.digest(NOTHING) and weighed.sizes(0).tolist() == [5, 6, 7]


@whatever(
    counts=hnp.arrays(np.int64, (5, 3), elements=st.integers(0, 9)).filter(lambda counts: counts.sum(1).all()),
    ends=st.tuples(st.integers(0, 4), st.integers(1, 5)).filter(lambda ends: ends[0] < ends[1]),
    t=st.integers(0, 1000),
)
def test_all_rows_know_the_same_of_all_clients(counts: np.ndarray, ends: tuple[int, int], t: int):
    """Whoever hosts whom; and of those that a row hosts, it draws the batches from what is theirs."""
    raw = {"rounds": 1, "model": {"name": "m"}, "task": {"name": "t"}, "algorithm": {"lr": 1}}
    asked = validate(raw | {"clients": {"count": 5, "per_round": 3, "manifest": "m", "partition": "manifest"}})
    hosted = range(*ends)
    whole, part = (
        HostedPool(asked, r, counts[r.start : r.stop].sum(1), counts, None, b"d") for r in (range(5), hosted)
    )
    assert part.digest(NOTHING) == whole.digest(NOTHING) and part.most_steps() == whole.most_steps()
    assert part.cohort(t) == whole.cohort(t) and part.sizes(t).tolist() == counts.sum(1)[whole.cohort(t)].tolist()
    assert part.report(np.zeros(0), ["a", "b", "c"]).counts.tolist() == counts.tolist()
    assert [len(indices) for indices in part.parts] == [n * (k in hosted) for k, n in enumerate(counts.sum(1))]
    assert np.concatenate(part.parts).tolist() == list(range(counts[hosted.start : hosted.stop].sum()))
    for client in hosted:
        assert set(part.batch(client, t)) <= set(part.parts[client])
