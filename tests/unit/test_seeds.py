"""Addresses of randomness: known answers, no collisions, fair samples."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcfed.seeds import coin, derive, name_key, normal, sample, shuffled, uniform

SEEDS = st.integers(0, 2**64 - 1)
PARTS = st.lists(st.text(max_size=5) | st.integers(-5, 2**40), max_size=4)


def digest(raw: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little")


def test_known_answers():
    """The bytes that are hashed, written out: orbits of old runs replay only as long as these hold."""
    assert derive(7) == digest(bytes([7] + 7 * [0]))
    assert derive(7, "ab", 12) == digest(bytes([7] + 7 * [0]) + b"\x06\0\0\0str:ab" + b"\x06\0\0\0int:12")
    assert name_key("model.decoder.layers.0.fc1.weight") == digest(b"model.decoder.layers.0.fc1.weight")


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ((), 0x18CC49CA5BEA08CA),
        (("direction", 0, 0), 0xDF208FF9A850769B),
        (("batch", 3, 17), 0x0C39EA143990582B),
        (("cohort", 5), 0xBCFCD2DCE0172CDE),
        (("partition",), 0x581D0702C735A2E9),
        (("digits", "split"), 0x6027074606FA0850),
    ],
)
def test_known_seeds(path, answer):
    assert derive(0, *path) == answer


def test_known_samples():
    assert sample(0, 10, 10) == [2, 4, 1, 8, 3, 7, 0, 9, 5, 6]
    assert sample(2**64 - 1, 10**12, 3) == [376158300262, 295942059824, 180829263795]


@given(SEEDS, PARTS, PARTS)
def test_different_paths_are_different_seeds(root, a, b):
    assert (derive(root, *a) == derive(root, *b)) == ([*map(repr, a)] == [*map(repr, b)])


def test_paths_cannot_be_confused():
    paths = [
        ("ab", "c"),
        ("a", "bc"),
        ("abc",),
        ("a", "b", "c"),
        (),
        ("",),
        ("", ""),
        (1,),
        ("1",),
        (12,),
        (1, 2),
        (-1,),
    ]
    assert len({derive(5, *path) for path in paths}) == len(paths)
    assert len({derive(root) for root in range(1000)}) == 1000


def test_root_is_taken_modulo_64_bits():
    assert derive(-1, "x") == derive(2**64 - 1, "x") != derive(0, "x")


@given(SEEDS, st.integers(0, 200), st.data())
def test_sample_is_distinct_and_in_range(seed, n, data):
    k = data.draw(st.integers(0, n))
    picked = sample(seed, n, k)
    assert len(picked) == k == len(set(picked)) and all(0 <= i < n for i in picked)
    assert sample(seed, n, n)[:k] == picked  # a longer sample begins with the shorter one
    assert sorted(sample(seed, n, n)) == list(range(n))


@pytest.mark.parametrize("n", [0, 1, 2, 700])
def test_a_shuffle_is_a_sample_of_all(n):
    assert list(shuffled(2**63 + 5, n)) == sample(2**63 + 5, n, n)


def test_sample_is_unbiased():
    """Every position holds every number equally often: chi-square of 8 x 8 counts over 4,000 shuffles."""
    shuffles = np.array([sample(derive(1, "test", i), 8, 8) for i in range(4000)])
    counts = np.stack([np.bincount(shuffles[:, k], minlength=8) for k in range(8)])
    chi2 = float(((counts - 500) ** 2 / 500).sum())
    assert 20 < chi2 < 90  # 49 degrees of freedom: 99.9 % of draws lie below 85.4


def test_sample_of_a_huge_range_takes_no_memory():
    assert len(set(sample(3, 2**62, 100))) == 100


def test_seeds_are_uniform_in_every_bit():
    seeds = np.array([derive(0, "direction", t, 0) for t in range(4000)], np.uint64)
    ones = ((seeds[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)).sum(axis=0)
    assert abs(ones - 2000.0).max() < 5 * np.sqrt(1000)


def test_coin_is_fair_and_addressed():
    flips = [coin(derive(0, "tie", t)) for t in range(4000)]
    assert set(flips) == {-1, 1} and abs(sum(flips)) < 4 * np.sqrt(4000)
    assert coin(9) == coin(9)


def test_known_draws():
    word = digest(bytes([7] + 7 * [0]) + b"\x0b\0\0\0str:uniform")
    assert uniform(7) == (2 * (word >> 12) + 1) / 2**53
    # Phi(normal(seed)) = uniform(seed), with the C library's erfc as the oracle
    for seed in range(50):
        assert math.isclose(math.erfc(-normal(seed) / math.sqrt(2)) / 2, uniform(seed), rel_tol=1e-12)


@given(SEEDS)
def test_uniform_is_in_the_open_interval_and_exact(seed):
    u = uniform(seed)
    assert 0 < u < 1 and (u * 2**53) % 2 == 1 and (1 - u) + u == 1


@pytest.mark.parametrize(("word", "u"), [(0, 2.0**-53), (2**64 - 1, 1 - 2.0**-53)])
def test_uniform_at_its_ends_has_a_normal(word, u, monkeypatch):
    monkeypatch.setattr("hpcfed.seeds.derive", lambda *_: word)
    assert uniform(0) == u and math.isclose(normal(0), math.copysign(8.209536151601386, u - 0.5), rel_tol=1e-12)


def test_draws_have_their_distributions():
    """Kolmogorov-Smirnov at 20,000 draws (bound: one in 10^4 such tests fails) and moments to the fourth."""
    n = 20_000
    uniforms = np.sort([uniform(derive(0, "test", i)) for i in range(n)])
    normals = np.sort([normal(derive(1, "test", i)) for i in range(n)])
    quantiles = np.array([math.erfc(-x / math.sqrt(2)) / 2 for x in normals])
    for found in (uniforms, quantiles):
        assert np.abs(found - (np.arange(n) + 0.5) / n).max() < 2.23 / math.sqrt(n)
    for power, moment, spread in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):  # spread: variance of x**power
        assert abs((normals**power).mean() - moment) < 4 * math.sqrt(spread / n)
