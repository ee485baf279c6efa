"""The specification against what it is made from: Random123's vectors, the normal's quantiles, torch's conversions."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import torch

from hpcfed.noise import spec
from hpcfed.noise.layout import Piece
from tests.support.noise import DTYPES, array_of, bits_from, bits_of, random_weights, read_golden, tensor_bits


def test_philox_known_answers():
    for _, line in read_golden("philox4x32_10.txt"):
        counter, key, out = (bits_from(line[name]) for name in ("counter", "key", "out"))
        assert spec.philox(counter[None, :], key.tolist())[0].tolist() == out.tolist()


def test_mix64_is_splitmix64():
    state, outputs = 0, []  # splitmix64 from state 0, the first outputs of its reference implementation
    for _ in range(3):
        state += 0x9E3779B97F4A7C15
        outputs.append(spec.mix64(state & spec.MASK))
    assert outputs == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def test_table_is_the_conditional_mean_of_its_bin():
    table = spec.normal_table().astype(np.float64)
    assert len(table) == 32768 and (np.diff(table) > 0).all() and table[0] > 0
    assert abs(np.mean(table**2) - 1) < 1e-9
    assert abs(np.mean(table**4) - 3) < 2e-4
    with mpmath.workdps(30):
        for j in (0, 1, 12345, 32766, 32767):  # independently of the tool: by erfinv
            a, b = (
                mpmath.sqrt(2) * mpmath.erfinv(mpmath.mpf(i) / 32768) if i < 32768 else mpmath.inf for i in (j, j + 1)
            )
            mean = 65536 * (mpmath.npdf(a) - (mpmath.npdf(b) if b < mpmath.inf else 0))
            assert abs(table[j] / float(mean) - 1) < 1e-6  # the rescaling is 7e-7


@pytest.mark.parametrize(("distribution", "group"), [("gaussian", 128), ("rademacher", 2048)])
def test_z_does_not_depend_on_what_else_is_drawn(distribution, group):
    elements = np.concatenate([np.arange(3 * group), 2**40 + np.arange(group + 5)]).astype(np.uint64)
    whole = spec.z(7, 9, elements, distribution)
    for k in (0, 1, group - 1, group, 2 * group + 17, 3 * group + 3):
        assert spec.z(7, 9, elements[k : k + 1], distribution)[0] == whole[k]


@pytest.mark.parametrize("distribution", spec.DISTRIBUTIONS)
def test_known_directions(distribution):
    for _, line in read_golden("noise_directions.txt", distribution):
        elements = np.uint64(int(line["first"], 16)) + np.arange(8, dtype=np.uint64)
        z = spec.z(int(line["seed"], 16), int(line["key"], 16), elements, distribution)
        assert bits_of(z).tolist() == bits_from(line["z"]).tolist()


def test_known_rounding_bits():
    for _, line in read_golden("noise_rounding.txt", "bits"):
        elements = np.uint64(int(line["first"], 16)) + np.arange(8, dtype=np.uint64)
        r = spec.bits16(spec.mix64(int(line["seed"], 16) ^ spec.ROUNDING_STREAM), int(line["key"], 16), elements)
        assert r.tolist() == bits_from(line["random"]).tolist()


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_nearest_is_what_torch_does(kind):
    x = random_weights(200_000, "float32", 1)
    mine, theirs = spec.narrow(x, kind), torch.from_numpy(x).to(DTYPES[kind])
    number = ~np.isnan(x)
    assert (bits_of(mine)[number] == tensor_bits(theirs)[number]).all()
    assert np.isnan(spec.widen(mine, kind)[~number]).all()


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_stochastic_rounding_known_answers(kind):
    for _, line in read_golden("noise_rounding.txt", kind):
        x = bits_from(line["x"]).view(np.float32)
        random = np.full(len(x), int(line["random"], 16), np.uint16)
        assert bits_of(spec.narrow_stochastic(x, kind, random)).tolist() == bits_from(line["out"]).tolist()


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_stochastic_rounding_keeps_what_the_format_holds(kind):
    held = array_of(np.arange(2**16, dtype=np.uint16), kind)
    x = spec.widen(held, kind)
    for random in (0, 0x7777, 0xFFFF):
        out = spec.narrow_stochastic(x, kind, np.full(2**16, random, np.uint16))
        assert (bits_of(out)[~np.isnan(x)] == bits_of(held)[~np.isnan(x)]).all()
        assert np.isnan(spec.widen(out, kind)[np.isnan(x)]).all()


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
@pytest.mark.parametrize("x", [1.001, -0.3333, 6.5e-5, 6.1e-5, -6.0e-5, 3.3e-6, -1.7e-8, 100.3])
def test_stochastic_rounding_is_unbiased(kind, x):
    """Over all 65,536 random values the mean is x, but for what lies below the last of the random bits."""
    x32 = np.full(2**16, x, np.float32)
    out = spec.widen(spec.narrow_stochastic(x32, kind, np.arange(2**16).astype(np.uint16)), kind).astype(np.float64)
    neighbours = np.unique(out)
    assert len(neighbours) == 2 and neighbours[0] < x32[0] < neighbours[1]
    assert abs(out.mean() - float(x32[0])) <= (neighbours[1] - neighbours[0]) / 2**16


def test_fingerprint_is_additive_and_sees_everything():
    rng = np.random.default_rng(0)
    raw = rng.integers(0, 2**32, 100, np.uint64).astype(np.uint32)
    whole = Piece(5, np.zeros(1, np.int64), 100)
    total = spec.fingerprint(raw, "float32", whole)
    parts = [
        spec.fingerprint(raw[a:b], "float32", Piece(5, np.array([a]), b - a)) for a, b in ((0, 33), (33, 34), (34, 100))
    ]
    assert spec.add_fingerprints(*parts) == total and spec.add_fingerprints() == 0
    swapped = raw.copy()
    swapped[[3, 4]] = swapped[[4, 3]]
    others = {
        spec.fingerprint(swapped, "float32", whole),
        spec.fingerprint(raw, "int32", whole),
        spec.fingerprint(raw, "float32", Piece(6, whole.starts, 100)),
        spec.fingerprint(raw, "float32", Piece(5, np.array([1]), 100)),
        *(spec.fingerprint(raw ^ (np.arange(100) == k) * np.uint32(1 << k % 32), "float32", whole) for k in range(100)),
    }
    assert len(others) == 104 and total not in others
