"""From a recipe to a run: what is built, the same every time, and what is refused before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from hpcfed.clients import CentralPool, Deal, Pool, partition
from hpcfed.config import METHODS, load_recipe
from hpcfed.errors import ConfigError
from hpcfed.seeds import derive
from hpcfed.tasks import Batch, Examples, Form, Task
from hpcfed.train.build import build_pool, build_run, build_together
from hpcfed.train.run import DenseRun, OrbitRun
from hpcfed.transport.solo import SoloTransport
from tests.support.digits import tiny

TRAIN = Examples({}, np.arange(90) % 10, np.array([f"p{i % 7}" for i in range(90)]))
NAMES = [str(c) for c in range(10)]


def pool_of(train: Examples, *asked: str, labels: Sequence[str] = NAMES) -> Pool:
    form = Form(lambda _: Batch({}, torch.zeros(0)), lambda logits, _: logits, lambda _: 1)
    return build_pool(tiny(*asked), Task("toy", list(labels), train, {}, form))


@pytest.mark.parametrize("name", METHODS)
def test_a_run_is_of_its_methods_kind(name: str):
    run = build_run(tiny(f"algorithm.name={name}"), SoloTransport())
    assert type(run) is (DenseRun if METHODS[name].dense else OrbitRun)
    assert run.header.algorithm == name and run.header.base_fingerprint == run.problem.weights.fingerprint()
    assert run.record.notes == () and run.mesh.ranks == 1


def test_building_is_a_function_of_the_recipe():
    first, again = (build_run(tiny(), SoloTransport()) for _ in range(2))
    assert first.header.to_json() == again.header.to_json() and first.data == again.data
    other = build_run(tiny("seed=1"), SoloTransport())
    assert other.data != first.data and other.header.base_fingerprint == first.header.base_fingerprint
    assert build_run(tiny("task.train_limit=600"), SoloTransport()).data != first.data


@pytest.mark.parametrize("scheme", ["iid", "dirichlet", "natural"])
def test_who_holds_what_depends_on_the_seed_and_the_partition_alone(scheme: str):
    asked = [f"clients.partition={scheme}", "clients.id_column=who", "seed=3"]
    pool = pool_of(TRAIN, *asked)
    dealt = partition(scheme, Deal(TRAIN.labels, 4, derive(3, "partition"), TRAIN.owners))
    assert [part.tolist() for part in pool.parts] == [part.tolist() for part in dealt]
    other = pool_of(TRAIN, *asked, "clients.batch=9", "clients.per_round=2", "clients.group=2", "rounds=9")
    assert [part.tolist() for part in other.parts] == [part.tolist() for part in pool.parts]
    assert (other.cohort_size, other.group, other.n_groups) == (2, 2, 2)


def test_a_central_method_holds_all_in_one_place():
    pool = pool_of(TRAIN, "algorithm.name=mezo")
    assert isinstance(pool, CentralPool) and [part.tolist() for part in pool.parts] == [list(range(90))]
    drawn = np.concatenate([pool.batch(k, 0) for k in range(pool.clients)])
    assert pool.clients == 4 and len(drawn) == len(set(drawn.tolist())) == 4  # slices of one batch


def test_groups_and_classes_of_the_task_are_what_is_dealt():
    rng = np.random.Generator(np.random.Philox(1))
    groups, classes = rng.integers(0, 30, 90), rng.integers(0, 3, 90)
    train = Examples({}, np.zeros(90, np.int64), groups=groups, classes=classes)
    asked = ["clients.partition=shards", "clients.class_column=kind", "clients.shards_per_client=1"]
    parts = pool_of(train, *asked, labels=[]).parts
    assert sum(len(set(groups[part])) for part in parts) == len(set(groups))
    seed = derive(tiny().seed, "partition")
    dealt = partition("shards", Deal(classes, 4, seed, shards_per_client=1, groups=groups))
    assert [part.tolist() for part in parts] == [part.tolist() for part in dealt]


@pytest.mark.parametrize("scheme", ["dirichlet", "dirichlet-balanced", "shards"])
def test_without_classes_nothing_is_dealt_by_them(scheme: str):
    answers = Examples({}, np.arange(90) % 4)
    with pytest.raises(ConfigError, match=r"task 'toy' has no classes; clients\.class_column names the column"):
        pool_of(answers, f"clients.partition={scheme}", labels=[])
    assert len(pool_of(answers, "clients.partition=iid", labels=[]).parts) == 4
    with pytest.raises(ConfigError, match=r"clients\.class_column='kind': task 'toy' has no such columns"):
        pool_of(TRAIN, f"clients.partition={scheme}", "clients.class_column=kind")


class Crowd(SoloTransport):
    """One of seven rows."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = 7


def test_too_many_rows_are_refused_before_anything_is_loaded():
    recipe = load_recipe("digits", ["model.name=/nowhere"])
    with pytest.raises(ConfigError, match=r"7 rows .* only 5 groups"):
        build_run(recipe, Crowd())


def test_what_cannot_be_built_is_a_setting_that_is_wrong(tmp_path: Path):
    transport = SoloTransport()
    for overrides, says in (
        (["model.name=/nowhere"], "/nowhere"),
        (['algorithm.train_only=["layers"]'], "layers"),
        (["clients.count=701", "clients.partition=iid"], "701"),
        (["task.eval_splits=['tests']"], "did you mean test?"),  # a DataError where it was found
    ):
        with pytest.raises(ConfigError, match=says) as caught:
            build_together(tiny(*overrides), transport)
        assert transport.is_everywhere(caught.value)
