"""Every setting's check, and those of several settings together; what a method's own are is in test_methods.py."""

from __future__ import annotations

import pytest

from hpcfed.config import METHODS, AlgorithmConfig, ClientsConfig, Recipe, load_recipe
from hpcfed.config.settings import recipe_class
from tests.support.recipes import refused_override


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("algorithm.lr=0", "algorithm.lr=0: input should be greater than 0"),
        ("algorithm.lr=-1e-3", "algorithm.lr=-0.001: input should be greater than 0"),
        ("algorithm.lr=nan", "algorithm.lr=nan: input should be a finite number"),
        ("algorithm.lr=inf", "algorithm.lr=inf: input should be a finite number"),
        ("algorithm.lr=fast", "algorithm.lr='fast': input should be a valid number"),
        ("algorithm.mu=0", "algorithm.mu=0: input should be greater than 0"),
        ("algorithm.mu=0.0", "algorithm.mu=0.0: input should be greater than 0"),
        ("algorithm.directions=0", "algorithm.directions=0: input should be greater than or equal to 1"),
        ("algorithm.final=2", "algorithm.final=2: input should be less than or equal to 1"),
        ("algorithm.schedule=cosin", "algorithm.schedule='cosin': input should be 'constant', 'linear' or 'cosine'"),
        ("algorithm.train_only=head", "algorithm.train_only='head': input should be a valid list"),
        ("rounds=0", "rounds=0: input should be greater than or equal to 1"),
        ("rounds=1.5", "rounds=1.5: input should be a valid integer"),
        ("rounds=many", "rounds='many': input should be a valid integer"),
        ("seed=-1", "seed=-1: input should be greater than or equal to 0"),
        (f"seed={2**63}", "input should be less than 9223372036854775808"),
        ("model.dtype=float64", "model.dtype='float64': input should be 'float32', 'bfloat16' or 'float16'"),
        ("model=3", "model=3: input should be a valid dictionary"),
        ("clients.count=0", "clients.count=0: input should be greater than or equal to 1"),
        ("clients.beta=0", "clients.beta=0: input should be greater than 0"),
        ("mesh.shards=0", "mesh.shards=0: input should be greater than or equal to 1"),
    ],
)
def test_wrong_values_are_named(override, message):
    assert message in refused_override(override)


@pytest.mark.parametrize("value", ["0", "-1", "0.0", "1.5", "11", "half"])
def test_a_wrong_per_round_is_refused(value):
    assert "clients.per_round" in refused_override(f"clients.per_round={value}")


@pytest.mark.parametrize(("per_round", "size"), [(1.0, 20), (1, 1), (20, 20), (0.25, 5), (0.01, 1), (7, 7)])
def test_per_round_is_a_number_or_a_fraction(per_round, size):
    assert ClientsConfig(count=20, per_round=per_round).cohort == size


def test_natural_partition_needs_a_column():
    assert "clients.id_column must name" in refused_override("clients.partition=natural")


def test_rounding_follows_the_dtype():
    for dtype, auto in (("float32", "nearest"), ("bfloat16", "stochastic"), ("float16", "stochastic")):
        assert load_recipe("digits", [f"model.dtype={dtype}"]).rounding == auto
    assert load_recipe("digits", ["model.dtype=bfloat16", "algorithm.rounding=nearest"]).rounding == "nearest"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["mesh.shards=2"], "mesh.graphs=true: with mesh.shards=2 a forward pass waits for other ranks"),
        (["algorithm.name=fedsgd"], "mesh.graphs=true: fedsgd does not probe"),
    ],
)
def test_graphs_are_for_probes_of_one_rank(overrides, message):
    assert load_recipe("digits", ["mesh.graphs=true", "mesh.device=cpu"]).mesh.graphs  # of no effect, and no fault
    assert message in refused_override("mesh.graphs=true", *overrides)


@pytest.mark.parametrize("name", METHODS)
def test_a_recipe_has_the_section_of_its_method(name: str):
    recipe = load_recipe("digits", [f"algorithm.name={name}"])
    assert type(recipe) is recipe_class(METHODS[name].settings) and isinstance(recipe, Recipe)
    assert type(recipe).model_fields.keys() == Recipe.model_fields.keys()
    assert recipe_class(AlgorithmConfig) is Recipe


@pytest.mark.parametrize("words", ["5", "[1]", "{a = 1}", "x", "true", '["a", {b = "c"}]'])
def test_words_are_a_list_or_a_table_of_texts(words):
    said = refused_override(f"task.verbalizers={words}")
    assert said.startswith("task.verbalizers=") and said.endswith('{CLASS = "WORD", ...} or ["WORD", ...]')


@pytest.mark.parametrize(
    "setting", ["prompt=''", "prompt=' '", "verbalizers=[]", "verbalizers={}", 'verbalizers=["a", " "]']
)
def test_an_empty_setting_is_not_the_default(setting):
    assert "empty" in refused_override(f"task.{setting}")
