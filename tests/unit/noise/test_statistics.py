"""Directions are standard normals or fair signs, independent of one another; stochastic rounding keeps the mean.

Seeds are fixed, so these cannot fail by chance; a bound of 5 standard deviations would by one seed in two million.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import special, stats

from hpcfed.noise import engine, spec
from hpcfed.noise.layout import Piece
from hpcfed.seeds import derive

MANY = 10_000_000
SEED = derive(0, "direction", 0, 0)


def draw(distribution: str, n: int = 1_000_000, seed: int = SEED, name: str = "weight") -> np.ndarray:
    out = torch.empty(n)
    engine.fill_(out, seed, Piece.whole(name, n), distribution)
    return out.numpy()


@pytest.fixture(scope="module")
def normals() -> np.ndarray:
    return draw("gaussian", MANY)


def test_gaussian_passes_kolmogorov_smirnov(normals):
    cdf = special.ndtr(np.sort(normals).astype(np.float64))
    steps = np.arange(MANY + 1) / MANY
    distance = max(np.max(steps[1:] - cdf), np.max(cdf - steps[:-1]))
    assert stats.kstwobign.sf(distance * np.sqrt(MANY)) > 0.01


def test_gaussian_moments(normals):
    z = normals.astype(np.float64)
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(np.mean(z**power) - moment) < 5 * np.sqrt(variance / MANY), power


def test_all_quantiles_are_drawn_alike(normals):
    """Chi-square over the table's 65,536 values, 153 draws each."""
    index = np.searchsorted(spec.normal_table(), np.abs(normals)) * 2 + (normals < 0)
    counts = np.bincount(index, minlength=65536)
    assert stats.chi2.sf(np.sum((counts - MANY / 65536) ** 2) / (MANY / 65536), 65535) > 0.01


def test_rademacher_is_balanced_everywhere():
    z = draw("rademacher", 2048 * 2048).reshape(2048, 2048)
    assert set(np.unique(z)) == {-1.0, 1.0}
    assert abs(z.mean()) < 5 / 2048
    assert np.abs(z.mean(axis=0)).max() < 5.5 / np.sqrt(2048)  # every lane and every bit of the words
    assert np.abs(z.mean(axis=1)).max() < 5.5 / np.sqrt(2048)  # every group


@pytest.mark.parametrize("distribution", spec.DISTRIBUTIONS)
def test_directions_are_independent(distribution):
    z = draw(distribution)
    others = {f"lag {lag}": np.roll(z, lag) for lag in (1, 8, 15, 16, 17, 32, 128, 2048)}
    others |= {f"seed {seed}": draw(distribution, seed=seed) for seed in (SEED + 1, SEED ^ 1 << 63, SEED ^ 1 << 32)}
    others |= {
        "name": draw(distribution, name="weight2"),
        "round": draw(distribution, seed=derive(0, "direction", 1, 0)),
    }
    for what, other in others.items():
        assert abs(np.mean(z * other, dtype=np.float64)) < 5 / np.sqrt(len(z)), what
        assert abs(np.mean(z * z * other, dtype=np.float64)) < 5 * np.sqrt(3 / len(z)), what


def test_rounding_bits_are_independent_of_the_direction():
    elements = np.arange(200_000, dtype=np.uint64)
    z = spec.z(SEED, 5, elements, "gaussian").astype(np.float64)
    r = spec.bits16(spec.mix64(SEED ^ spec.ROUNDING_STREAM), 5, elements) / 65536 - 0.5
    assert abs(np.mean(r)) < 5 * np.sqrt(1 / 12 / len(z))
    assert abs(np.mean(z * r)) < 5 * np.sqrt(1 / 12 / len(z))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("weight", [1.0, 0.037, 2e-5, 3e-8])
def test_stochastic_moves_are_unbiased_and_nearest_ones_get_stuck(dtype, weight):
    """Steps of a hundredth of the format's spacing: their mean arrives, though most weights do not move."""
    n = 1_000_000
    w = torch.full((n,), weight).to(dtype)
    up = torch.nextafter(w[:1], torch.ones(1, dtype=dtype) * 2)
    spacing = float(up.float() - w[0].float())
    piece, z = Piece.whole("w", n), torch.empty(n)
    seeds, c = np.array([SEED], np.uint64), np.array([-spacing / 100], np.float32)
    engine.fill_(z, SEED, piece, "gaussian")
    z = z.double()
    stochastic, nearest = w.clone(), w.clone()
    engine.move_([(stochastic, piece)], seeds, c, "gaussian", "stochastic")
    engine.move_([(nearest, piece)], seeds, c, "gaussian", "nearest")
    assert torch.equal(nearest, w)
    arrived = (stochastic.double() - w.double()) / spacing
    exact = (w.float() - torch.from_numpy(c) * z.float()).double() - w.double()  # the step as float32 holds it
    error = arrived - exact / spacing
    share = float((stochastic != w).double().mean())
    assert 0.004 < share < 0.012  # E|z| / 100 = 0.008
    assert abs(float(error.mean())) < 5 * np.sqrt(share / n) + 2**-15
    assert abs(float((arrived * z).mean()) - 0.01) < 5 * np.sqrt(3 * share / n)
