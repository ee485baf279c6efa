"""What a run's orbit says about itself makes the method again, and says all that replay needs."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpcfed.algorithms import make_algorithm
from hpcfed.algorithms.header import make_header
from hpcfed.clients import CentralPool, Pool
from hpcfed.config import METHODS, Recipe, load_method, validate
from hpcfed.orbit import Header
from hpcfed.weights import Weights
from tests.support.toy import Line

PARTS = [np.arange(0, 7), np.arange(7, 10), np.arange(10, 21)]
WITH_ORBIT = [name for name, traits in METHODS.items() if not traits.dense]


def recipe_of(model: dict[str, Any] | None = None, **algorithm: Any) -> Recipe:
    return validate(
        {
            "rounds": 40,
            "seed": 11,
            "model": {"name": "facebook/opt-125m"} | (model or {}),
            "task": {"name": "sst2"},
            "clients": {"count": 3, "batch": 5},
            "algorithm": {"lr": 0.25} | algorithm,
        }
    )


def header_of(recipe: Recipe, weights: Weights | None = None, fingerprint: str | None = None) -> Header:
    pool = CentralPool(np.arange(21), 3, 1, 5, 11) if recipe.algorithm.traits.central else Pool(PARTS, 3, 1, 5, 11)
    weights = weights or Weights(Line(), recipe.algorithm.train_only)
    return make_header(recipe, weights, "sequence-classification", ["bad", "good"], pool, fingerprint)


@pytest.mark.parametrize("name", WITH_ORBIT)
def test_it_makes_the_method_again(name):
    """From its JSON, as a stranger would."""
    header = header_of(recipe_of(name=name))
    assert header.algorithm == name and Header.from_json(header.to_json()) == header
    assert header.payload == ("signs" if METHODS[name].votes else "floats")
    ours, theirs = make_algorithm(header), load_method(name).make(Header.from_json(header.to_json()))
    plans = [algorithm.plan(0, None) for algorithm in (ours, theirs)]
    assert np.array_equal(plans[0].seeds, plans[1].seeds)
    assert (ours.uplink_bits, ours.downlink_bits) == (theirs.uplink_bits, theirs.downlink_bits)


def test_it_says_what_replay_needs():
    recipe = recipe_of(
        {"dtype": "bfloat16"}, directions=3, schedule="linear", warmup=2, final=0.1, distribution="rademacher",
        train_only=["*.bias"],
    )  # fmt: skip
    weights = Weights(Line(), ["*.bias"])
    header = header_of(recipe, weights)
    assert (header.run_seed, header.directions, header.lr) == (11, 3, 0.25)
    assert dict(header.schedule) == {"name": "linear", "warmup": 2, "rounds": 40, "final": 0.1}
    assert (header.distribution, header.rounding, header.dtype) == ("rademacher", "stochastic", "bfloat16")
    assert (header.kind, list(header.labels)) == ("sequence-classification", ["bad", "good"])
    assert list(header.train_only) == ["*.bias"] and header.layout_hash == weights.layout_hash
    assert header.base_model == "facebook/opt-125m" and header.base_fingerprint == weights.fingerprint()
    assert dict(header.settings) == {} and header_of(recipe, weights, "ab" * 16).base_fingerprint == "ab" * 16


def test_a_folder_of_the_users_own_is_told_by_its_last_name_alone(tmp_path: Path):
    header = header_of(recipe_of({"name": str(tmp_path / "secret-project" / "my-model")}))
    assert header.base_model == "my-model" and "secret" not in header.to_json()


def test_an_optimiser_is_named_only_where_it_moves_the_weights():
    plain = header_of(recipe_of())
    adam = recipe_of(update="optimizer", optimizer="Adam", optimizer_options={"betas": [0.8, 0.9]})
    assert dict(plain.settings) == {}
    assert dict(header_of(adam).settings) == {"optimizer": "Adam", "optimizer_options": {"betas": [0.8, 0.9]}}
    both = header_of(recipe_of(name="zo-fedsgd", update="optimizer"))
    alone = header_of(recipe_of(name="zo-fedsgd"))
    assert dict(both.settings) == dict(alone.settings) | {"optimizer": "SGD", "optimizer_options": {}}


def test_a_method_of_the_users_own_is_named_by_its_record_and_the_digest_of_its_file(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(Path(__file__).parents[3] / "examples")
    header = header_of(recipe_of(name="my_method.py:METHOD"))
    assert header.algorithm == load_method("my_method.py:METHOD").name and ".py" not in header.to_json()
    assert header.settings["code"] == blake2b(Path("my_method.py").read_bytes(), digest_size=16).hexdigest()
