from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from hpcfed.algorithms.schedule import step_size


def schedule(name: str, warmup: int = 0, rounds: int = 100, final: float = 0.0) -> dict[str, object]:
    return {"name": name, "warmup": warmup, "rounds": rounds, "final": final}


def test_constant():
    assert [step_size(0.1, schedule("constant"), t) for t in (0, 50, 99, 1000)] == [0.1] * 4


def test_linear_known_values():
    rule = schedule("linear", rounds=10, final=0.5)
    found = [step_size(2.0, rule, t) for t in (0, 5, 10, 11)]
    assert found == [2.0, 1.5, 1.0, 1.0]
    assert step_size(2.0, schedule("linear", rounds=4), 1) == 1.5


def test_cosine_known_values():
    rule = schedule("cosine", rounds=100)
    assert step_size(1.0, rule, 0) == 1.0
    assert step_size(1.0, rule, 50) == pytest.approx(0.5, abs=1e-12)
    assert step_size(1.0, rule, 100) == pytest.approx(0.0, abs=1e-12)
    assert step_size(1.0, schedule("cosine", rounds=6, final=0.1), 2) == pytest.approx(0.1 + 0.9 * 0.75, abs=1e-12)


def test_cosine_is_the_library_cosine():
    rule = schedule("cosine", warmup=7, rounds=1007, final=0.25)
    for t in range(7, 1008):
        exact = 0.25 + 0.75 * (1 + math.cos(math.pi * (t - 7) / 1000)) / 2
        assert step_size(1.0, rule, t) == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize("name", ["constant", "linear", "cosine"])
def test_warmup_rises_to_lr_and_falls_from_there(name: str):
    rule = schedule(name, warmup=4, rounds=20)
    found = [step_size(1.0, rule, t) for t in range(21)]
    np.testing.assert_allclose(found[:5], [0.2, 0.4, 0.6, 0.8, 1.0], rtol=1e-15)
    assert all(a >= b for a, b in itertools.pairwise(found[4:]))
    assert found[-1] == pytest.approx(1.0 if name == "constant" else 0.0, abs=1e-12)


@pytest.mark.parametrize("name", ["constant", "linear", "cosine"])
def test_a_step_is_never_negative_and_a_warmup_as_long_as_the_run_is_no_division_by_zero(name: str):
    assert all(step_size(1.0, schedule(name, 3, 3), t) >= 0 for t in range(10))
    assert all(step_size(1.0, schedule(name, 0, 1), t) >= 0 for t in range(10))
