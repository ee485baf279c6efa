"""From a recipe to a run: what is built, the same every time, and what is refused before anything is loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hpcfed.clients import CentralPool, Deal, partition
from hpcfed.config import METHODS, load_recipe
from hpcfed.errors import ConfigError
from hpcfed.seeds import derive
from hpcfed.tasks import Examples
from hpcfed.train.build import build_pool, build_run, build_together
from hpcfed.train.run import DenseRun, OrbitRun
from hpcfed.transport.solo import SoloTransport
from tests.support.digits import tiny

TRAIN = Examples({}, np.arange(90) % 10, np.array([f"p{i % 7}" for i in range(90)]))


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
    pool = build_pool(tiny(*asked), TRAIN)
    dealt = partition(scheme, Deal(TRAIN.labels, 4, derive(3, "partition"), TRAIN.owners))
    assert [part.tolist() for part in pool.parts] == [part.tolist() for part in dealt]
    other = build_pool(tiny(*asked, "clients.batch=9", "clients.per_round=2", "clients.group=2", "rounds=9"), TRAIN)
    assert [part.tolist() for part in other.parts] == [part.tolist() for part in pool.parts]
    assert (other.cohort_size, other.group, other.n_groups) == (2, 2, 2)


def test_a_central_method_holds_all_in_one_place():
    pool = build_pool(tiny("algorithm.name=mezo"), TRAIN)
    assert isinstance(pool, CentralPool) and [part.tolist() for part in pool.parts] == [list(range(90))]
    drawn = np.concatenate([pool.batch(k, 0) for k in range(pool.clients)])
    assert pool.clients == 4 and len(drawn) == len(set(drawn.tolist())) == 4  # slices of one batch


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
