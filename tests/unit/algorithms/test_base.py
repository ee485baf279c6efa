"""What methods with an orbit have in common: seeds, decisions, and a stranger's settings that are refused."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hpcfed.algorithms import make_algorithm
from hpcfed.algorithms.base import (
    Method,
    directions,
    diverged,
    expect_choice,
    expect_counts,
    expect_width,
    pack_floats,
    reports,
    unpack_floats,
)
from hpcfed.config import METHODS, find_traits, load_method
from hpcfed.errors import DivergedError, OrbitError
from hpcfed.messages import Slopes
from hpcfed.seeds import derive
from tests.support.orbits import make

NAN = bytes.fromhex("0000c07f")  # little-endian


def test_an_unknown_algorithm():
    with pytest.raises(OrbitError, match=r"no method with an orbit is called 'feedsing'; did you mean feedsign\?"):
        make_algorithm(make(algorithm="feedsing"))


@pytest.mark.parametrize(
    "why", [ValueError("one thing"), KeyError("another"), TypeError("a third")], ids=lambda e: type(e).__name__
)
def test_settings_that_do_not_make_the_method_are_the_orbits_fault(why):
    def refuse(header):
        raise why

    method = Method("my-own", find_traits("feedsign"), refuse)
    with pytest.raises(OrbitError, match=rf"its settings do not make a my-own \({why}\)"):
        make_algorithm(make(algorithm="my-own"), method)


def test_a_method_of_ones_own_makes_its_own_orbits_and_no_others():
    known = load_method("feedsign")
    own = replace(known, name="my-own")
    header = make(algorithm="my-own")
    assert make_algorithm(header, own).uplink_bits == 1
    with pytest.raises(OrbitError, match=r"'my-own'.*--method FILE\.py:NAME"):
        make_algorithm(header)
    with pytest.raises(OrbitError, match="made by 'my-own', not by the method 'feedsign'"):
        make_algorithm(header, known)
    with pytest.raises(OrbitError, match="no method with an orbit is called 'fedsgd'"):  # it is dense
        make_algorithm(make(algorithm="fedsgd"))


@pytest.mark.parametrize("name", [name for name, traits in METHODS.items() if not traits.dense])
def test_every_method_is_a_record_that_a_recipe_names(name):
    method = load_method(name)
    assert isinstance(method, Method) and method.name == name and method.traits is METHODS[name]


def test_what_a_record_leaves_out():
    method, header = Method("my-own", find_traits("feedsign"), lambda header: None), make(directions=3)
    assert method.slopes(header) == method.moves(header) == 3 and not method.apart(header)
    assert method.settings(None, None) == {} and method.note == ""


def test_directions_are_named_by_run_round_and_place():
    shared, own = directions(7, 3, 2), directions(7, 3, 2, [0, 4])
    assert shared.dtype == own.dtype == np.uint64
    assert shared.tolist() == [[derive(7, "direction", 3, i) for i in range(2)]]
    assert own.tolist() == [[derive(7, "direction", 3, i, k) for i in range(2)] for k in (0, 4)]
    assert np.array_equal(directions(7, 3, 5)[:, :2], shared)
    each = [directions(seed, t, 4, slots) for seed, t in product(range(3), range(3)) for slots in (None, range(5))]
    seeds = np.concatenate([x.ravel() for x in each])
    assert len(np.unique(seeds)) == len(seeds) == 9 * (4 + 20)


def test_reports_are_the_slopes_and_what_float32_cannot_hold_abstains():
    values = np.array([[0.1, -1e300], [np.nan, 1e-60]])
    found = reports(Slopes([0, 1], values, np.zeros(2)), 0)
    assert found.dtype == np.float32 and found.shape == (2, 2)
    assert found[0, 0] == np.float32(0.1) and found[1, 1] == 0
    assert not np.isfinite(found[0, 1]) and not np.isfinite(found[1, 0])


@given(arrays.arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 4)), elements=st.floats(width=32)))
def test_floats_come_back_bit_for_bit_and_all_that_is_not_finite_is_one_nan(values):
    decision = pack_floats(values)
    assert len(decision) == 4 * values.size
    back = unpack_floats(decision, *values.shape)
    finite = np.isfinite(values)
    assert back.dtype == np.float32 and back.shape == values.shape
    assert back[finite].tobytes() == values[finite].tobytes()
    assert all(decision[4 * i : 4 * i + 4] == NAN for i in np.flatnonzero(~finite))
    assert np.isnan(back[~finite]).all()


def test_decisions_are_little_endian():
    assert pack_floats(np.array([1.0, -2.0, np.inf, -np.nan])) == bytes.fromhex("0000803f 000000c0") + 2 * NAN
    negative = bytes.fromhex("010080ff")  # a signalling NaN of a stranger
    for strange in (bytes.fromhex("0000807f"), negative, NAN):
        assert unpack_floats(strange, 1).tobytes() == np.float32(np.nan).tobytes()


@pytest.mark.parametrize(
    "shape", [(2, 2), (12, 0), (-2, -3), (6.0,), (True, 6), ("6",), (None,), (2, 3, 1, 2), (2**62, 4)]
)
def test_a_decision_of_another_width_is_refused(shape):
    floats = make(payload="floats", settings={"width": 6})
    expect_width(floats, 2, 3)
    expect_width(floats, 6)
    with pytest.raises(ValueError, match="6 floats a round where"):
        expect_width(floats, *shape)
    with pytest.raises(ValueError, match="6 signs a round where"):
        expect_width(make(payload="signs", directions=6), 6)


@pytest.mark.parametrize("bad", [0, -1, 2**18 + 1, True, 1.0, "3", None, [1]])
def test_counts_that_nobody_can_walk_are_refused(bad):
    expect_counts(1, 2**18)
    expect_counts()
    with pytest.raises(ValueError, match="are no counts between 1 and 262144"):
        expect_counts(1, bad)


def test_a_choice_is_one_of_the_known_words():
    expect_choice("tally", "mean", "mean", "median")
    for bad in ("means", None, 1, ["mean"]):
        with pytest.raises(ValueError, match="tally is none of mean, median"):
            expect_choice("tally", bad, "mean", "median")


def test_who_diverges_at_once_has_a_damaged_model_and_who_does_later_too_large_a_step():
    first, later = diverged(make(), 0, 5), diverged(make(lr=0.25), 8, 5)
    assert isinstance(first, DivergedError) and isinstance(later, DivergedError)
    assert "round 0: all 5 clients" in str(first) and "base model" in str(first) and "lr" not in str(first)
    assert "round 8: all 5 clients" in str(later) and "algorithm.lr (now 0.25)" in str(later)
