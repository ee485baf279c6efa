"""The methods: their traits are those of their records, and a setting of another method is refused with who has it."""

from __future__ import annotations

from typing import Any

import pytest

from hpcfed.algorithms import Method
from hpcfed.config import METHODS, AlgorithmConfig, find_traits, load_method, load_recipe
from hpcfed.config.methods import MOST_STEPS, voting
from hpcfed.errors import ConfigError
from hpcfed.first_order import DenseMethod

IN_PLACE, WALKS = ["feedsign", "zo-fedsgd", "mezo"], ["zo-fedavg", "fedkseed", "fedkseed-pro"]

#: Setting -> a value that is not its default, the default, and the methods that have it.
OWN: dict[str, tuple[Any, Any, list[str]]] = {
    "ballot": ('"bits"', '"sum"', ["feedsign"]),
    "directions": (3, 1, IN_PLACE),
    "update": ('"optimizer"', '"in-place"', IN_PLACE),
    "optimizer": ('"Adam"', '"SGD"', [*IN_PLACE, "fedavg"]),
    "optimizer_options": ("{momentum = 0.9}", "{}", [*IN_PLACE, "fedavg"]),
    "walk_copy": ('"host"', '"device"', WALKS),
    "seeds": ('"shared"', '"own"', ["zo-fedsgd"]),
    "tally": ('"median"', '"mean"', ["zo-fedsgd"]),
    "trim": (0.3, 0.2, ["zo-fedsgd"]),
    "pool_size": (8, 1024, ["fedkseed", "fedkseed-pro"]),
    "history_clip": (5.0, 1000.0, ["fedkseed-pro"]),
    "local_epochs": (2, 1, ["fedavg"]),
}


def section(*overrides: str) -> AlgorithmConfig:
    return load_recipe("digits", [f"algorithm.{override}" for override in overrides]).algorithm


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_found_by_its_name(name: str):
    record, traits = load_method(name), find_traits(name)
    assert record.name == name and record.traits is traits is METHODS[name]
    assert isinstance(record, DenseMethod if traits.dense else Method)
    assert type(section(f"name={name}")) is traits.settings and section(f"name={name}").traits is traits


def test_what_each_method_is():
    assert voting() == ["feedsign"]
    assert [name for name, traits in METHODS.items() if traits.dense] == ["fedsgd", "fedavg"]
    assert [name for name, traits in METHODS.items() if traits.walks] == [*WALKS, "fedavg"]
    assert [name for name, traits in METHODS.items() if traits.central] == ["mezo"]


@pytest.mark.parametrize("setting", OWN)
def test_a_setting_of_other_methods_is_refused_with_their_names(setting: str):
    other, default, having = OWN[setting]
    assert [name for name, traits in METHODS.items() if traits.has(setting)] == sorted(having, key=list(METHODS).index)
    who = ", ".join(sorted(having, key=list(METHODS).index))
    for name in METHODS:
        section(f"name={name}", f"{setting}={default}")  # which says nothing
        if name in having:
            continue
        with pytest.raises(ConfigError, match=rf"^algorithm\.{setting}=.*: {name} has no such setting \({who} do\)$"):
            section(f"name={name}", f"{setting}={other}")


def test_local_steps_are_those_of_methods_that_walk():
    steps = {name: section(f"name={name}").local_steps for name in METHODS if name not in ("fedkseed", "fedkseed-pro")}
    assert steps == dict.fromkeys(steps) | {"zo-fedavg": 5}
    assert METHODS["fedkseed"].settings.model_fields["local_steps"].default == 200
    for name in ("feedsign", "mezo", "fedsgd"):
        with pytest.raises(ConfigError, match=rf"local_steps=3: {name} has no such setting \({', '.join(WALKS)} do\)"):
            section(f"name={name}", "local_steps=3")
    assert section("name=zo-fedavg", "local_steps=epoch").local_steps == "epoch"
    with pytest.raises(ConfigError, match=r'algorithm\.local_steps="epoch": FedKSeed takes a number'):
        section("name=fedkseed", "local_steps=epoch")


def test_a_round_has_no_more_slopes_than_a_record_holds():
    walk, fit = ["algorithm.name=zo-fedavg", "algorithm.local_steps=100000"], MOST_STEPS // 100_000
    assert load_recipe("digits", [*walk, f"clients.count={fit}"]).clients.cohort == fit
    with pytest.raises(ConfigError, match=rf"{fit + 1} clients a round make {(fit + 1) * 100_000:,} slopes of it"):
        load_recipe("digits", [*walk, f"clients.count={fit + 1}"])


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["name=feedsing"], "algorithm.name='feedsing' is unknown; did you mean feedsign?"),
        (["name=fedsgd", "rounding=stochastic"], 'algorithm.rounding="stochastic": fedsgd rounds to nearest'),
        (["optimizer=Adam"], 'algorithm.optimizer: only algorithm.update="optimizer" uses an optimiser'),
        (["name=zo-fedsgd", "tally=median"], "slopes along different directions have no median"),
        (["name=zo-fedsgd", "trim=0.3"], 'algorithm.trim=0.3: only algorithm.tally="trimmed" leaves slopes out'),
        (
            ["name=zo-fedsgd", "seeds=shared", "tally=trimmed", "trim=0.09"],
            "algorithm.trim=0.09 of 10 clients a round leaves nobody out; use at least 0.1",
        ),
    ],
)
def test_settings_that_contradict_each_other(overrides: list[str], says: str):
    with pytest.raises(ConfigError) as caught:
        section(*overrides)
    assert says in str(caught.value)


def test_somebody_is_left_out_by_a_trimmed_mean():
    assert section("name=zo-fedsgd", "seeds=shared", "tally=trimmed", "trim=0.1").check_cohort(10) is None
