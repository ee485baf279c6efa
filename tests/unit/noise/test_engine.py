"""What only the CPU engine can do wrong: threads, forks, slices, lists of seeds, long sums that are rounded once.

Its bits, as those of every engine: test_cpu.py.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcfed.noise import engine, spec
from hpcfed.noise.layout import Piece
from tests.support.noise import DTYPES, array_of, bits_of, random_weights, tensor_bits, tensor_of
from tests.support.noise_engines import KINDS, pieces, words64


@pytest.fixture(autouse=True)
def default_threads():
    yield
    engine.set_threads(None)


def test_an_outgrown_float16_stays_infinite():
    """Also between the steps of one sweep, where weights are float32: 65,536 must not come back into range."""
    w = np.full(4096, 65504, np.float16)
    piece, seeds, c = Piece.whole("w", 4096), np.array([1, 1], np.uint64), np.array([40, -60], np.float32)
    for rounding in spec.ROUNDINGS:
        tensor = tensor_of(w, "float16")
        engine.move_([(tensor, piece)], seeds, c, "gaussian", rounding)
        assert (tensor_bits(tensor) == bits_of(spec.move(w, seeds, c, piece, "gaussian", rounding, "float16"))).all()
        assert 0.1 < float(torch.isinf(tensor).float().mean()) < 0.9


@pytest.mark.parametrize(
    "starts, length", [([3], 300_007), ([2**40 + 1, 17, 2**32 - 9], 100_003), (range(0, 9**6, 729), 300)]
)
def test_threads_and_slices_change_nothing(starts, length):
    piece = Piece(99, np.array(starts, np.int64), length)
    w = torch.from_numpy(np.random.default_rng(0).standard_normal(piece.numel)).to(torch.bfloat16)
    seeds, c = np.array([1, 2], np.uint64), np.array([1e-3, -1e-2], np.float32)
    results = []
    for threads in (1, 2, 5):
        engine.set_threads(threads)
        moved, z = w.clone(), torch.empty(piece.numel)
        engine.move_([(moved, piece)], seeds, c, "gaussian", "stochastic")
        engine.fill_(z, 4, piece, "rademacher")
        results.append((tensor_bits(moved).tolist(), z.tolist(), engine.fingerprint(w, piece)))
    assert results[1] == results[0] and results[2] == results[0]
    sliced, prints, run = w.clone().view(len(starts), length), [], len(starts) - 1
    for a, b in ((0, 1), (1, length // 3), (length // 3, length)):  # columns of the piece, as a shard along dim 1
        part = sliced[:, a:b].contiguous()
        where = Piece(99, piece.starts + a, b - a)
        prints.append(engine.fingerprint(part, where))
        engine.move_([(part, where)], seeds, c, "gaussian", "stochastic")
        sliced[:, a:b] = part
    assert tensor_bits(sliced.view(-1)).tolist() == results[0][0]
    assert engine.add_fingerprints(*prints) == results[0][2]
    alone = torch.empty(length)
    engine.fill_(alone, 4, Piece(99, piece.starts[run:], length), "rademacher")
    assert alone.tolist() == results[0][1][run * length :]


def test_rows_of_an_embedding_are_rows_of_the_whole():
    whole, width = Piece.whole("embed", 50 * 96), 96
    full = torch.empty(50, width)
    engine.fill_(full, 5, whole, "gaussian")
    rows = np.array([49, 0, 7, 7, 3])
    part = torch.empty(5, width)
    engine.fill_(part, 5, whole.rows(rows, width), "gaussian")
    assert torch.equal(part, full[torch.from_numpy(rows)])


def test_arguments_that_cannot_be_meant_are_refused():
    piece, w = Piece.whole("w", 12), torch.zeros(3, 4)
    with pytest.raises(AssertionError, match="contiguous"):
        engine.fill_(w.t(), 1, piece, "gaussian")
    with pytest.raises(AssertionError, match="piece of 12 elements for a tensor of 4"):
        engine.fill_(torch.zeros(4), 1, piece, "gaussian")
    with pytest.raises(AssertionError):
        engine.perturb(w, w.to(torch.bfloat16), None, 1, 1e-3, piece, "gaussian")


def test_read_only_and_strided_lists_of_seeds():
    piece, seeds, c = Piece.whole("w", 40), np.arange(6, dtype=np.uint64)[::2], np.ones(6, np.float32)[::2]
    a, b = torch.zeros(40), torch.zeros(40)
    engine.move_([(a, piece)], seeds, c, "gaussian", "nearest")
    frozen = np.frombuffer(seeds.tobytes(), np.uint64)
    engine.move_([(b, piece)], frozen, np.frombuffer(c.tobytes(), np.float32), "gaussian", "nearest")
    assert torch.equal(a, b) and a.any()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore")
def test_a_forked_child_can_draw():
    """A data loader's worker inherits a pool whose threads did not survive, and torch operations it must not use."""
    engine.set_threads(2)
    piece, out = Piece.whole("w", 200_000), torch.empty(200_000)
    engine.fill_(out, 1, piece, "gaussian")
    values, expected = out.numpy(), out.numpy().copy()
    child = os.fork()
    if child == 0:
        fresh = engine._pool is None
        values[:] = 0
        engine.fill_(out, 1, piece, "gaussian")
        os._exit(0 if fresh and np.array_equal(values, expected) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# --- move_(once=True): a sum of many directions in float32 with one rounding, the specification's bit for bit ---------

steps = st.lists(
    st.tuples(words64, st.sampled_from([1e-6, 1e-3, -2.0, 1e-42, 1e38, 0.0, -0.0, np.inf, np.nan])), max_size=6
)


@settings(max_examples=400, deadline=None)
@given(
    pieces(), steps, st.sampled_from(KINDS), st.sampled_from(spec.DISTRIBUTIONS), st.sampled_from(spec.ROUNDINGS)
)  # fmt: skip
def test_move_once_equals_spec(piece, steps, kind, distribution, rounding):
    seeds, c = np.array([s for s, _ in steps], np.uint64), np.array([x for _, x in steps], np.float32)
    w = random_weights(piece.numel, kind, len(steps))
    tensor = tensor_of(w, kind)
    engine.move_([(tensor, piece)], seeds, c, distribution, rounding, once=True)
    assert (tensor_bits(tensor) == bits_of(spec.move_once(w, seeds, c, piece, distribution, rounding, kind))).all()


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
@pytest.mark.parametrize("rounding", spec.ROUNDINGS)
@pytest.mark.parametrize("distribution", spec.DISTRIBUTIONS)
def test_every_16_bit_weight(kind, rounding, distribution):
    w = array_of(np.arange(2**16, dtype=np.uint16), kind)
    piece, seeds = Piece(3, np.array([2**33 + 5]), 2**16), np.array([11, 12, 13], np.uint64)
    for scale in (1e-9, 1e-4, 40.0):
        c = np.array([scale, -scale / 3, scale / 7], np.float32)
        tensor = tensor_of(w, kind)
        engine.move_([(tensor, piece)], seeds, c, distribution, rounding, once=True)
        assert (tensor_bits(tensor) == bits_of(spec.move_once(w, seeds, c, piece, distribution, rounding, kind))).all()


@pytest.mark.parametrize("distribution", spec.DISTRIBUTIONS)
@pytest.mark.parametrize("n", [1, 2, 5, 64])
def test_in_float32_it_is_one_step_after_the_other(distribution, n):
    w = tensor_of(random_weights(5000, "float32", 1), "float32")
    piece, seeds = Piece.whole("w", 5000), np.arange(n, dtype=np.uint64)
    c = (np.random.default_rng(n).standard_normal(n) * 1e-3).astype(np.float32)
    once, all_steps, single = w.clone(), w.clone(), w.clone()
    engine.move_([(once, piece)], seeds, c, distribution, "stochastic", once=True)
    engine.move_([(all_steps, piece)], seeds, c, distribution, "stochastic")
    for i in range(n):
        engine.move_([(single, piece)], seeds[i : i + 1], c[i : i + 1], distribution, "nearest")
    assert (tensor_bits(once) == tensor_bits(all_steps)).all() and (tensor_bits(once) == tensor_bits(single)).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("distribution", spec.DISTRIBUTIONS)
def test_steps_of_zero_are_left_out(kind, distribution):
    """-0 and infinity stay what they are; the last seed rounds even so; and with no step left nothing is touched."""
    n, seeds = 3000, np.array([1, 2, 3, 4], np.uint64)
    w, piece = random_weights(n, kind, 5), Piece.whole("w", n)
    w[:4] = spec.narrow(np.array([-0.0, 0.0, np.inf, -np.inf], np.float32), kind)
    untouched = tensor_of(w, kind)
    engine.move_(
        [(untouched, piece)], seeds, np.array([0, -0.0, 0, 0], np.float32), distribution, "stochastic", once=True
    )
    engine.move_([(untouched, piece)], seeds[:0], np.zeros(0, np.float32), distribution, "stochastic", once=True)
    assert (tensor_bits(untouched) == bits_of(w)).all()  # not even a NaN is rewritten
    with_zeros, without, other = (tensor_of(w, kind) for _ in range(3))
    c = np.array([0, 1e-3, -0.0, 0], np.float32)
    engine.move_([(with_zeros, piece)], seeds, c, distribution, "stochastic", once=True)
    engine.move_([(without, piece)], seeds[[1, 3]], c[[1, 3]], distribution, "stochastic", once=True)
    engine.move_([(other, piece)], seeds[1:2], c[1:2], distribution, "stochastic", once=True)
    assert (tensor_bits(with_zeros) == tensor_bits(without)).all()
    assert kind == "float32" or (tensor_bits(with_zeros) != tensor_bits(other)).any()  # rounded by seed 2, not by 4
    tiny = tensor_of(spec.narrow(np.full(n, -0.0, np.float32), kind), kind)
    engine.move_([(tiny, piece)], seeds[:2], np.array([0, 1e-45], np.float32), distribution, "nearest", once=True)
    assert (tiny != 0).any() == (kind == "float32")  # a denormal step is a step


@pytest.mark.parametrize("distribution", spec.DISTRIBUTIONS)
@pytest.mark.parametrize(("starts", "length"), [([5], 150_001), ([2**40 + 1, 17, 2**32 - 9], 33_003)])
def test_threads_and_slices_change_nothing_of_a_sum(starts, length, distribution):
    piece = Piece(99, np.array(starts, np.int64), length)
    w = torch.from_numpy(np.random.default_rng(0).standard_normal(piece.numel)).to(torch.bfloat16)
    seeds = np.arange(33, dtype=np.uint64)
    c = np.linspace(-1e-3, 1e-2, 33).astype(np.float32)
    results = []
    for threads in (1, 2, 5):
        engine.set_threads(threads)
        moved = w.clone()
        engine.move_([(moved, piece)], seeds, c, distribution, "stochastic", once=True)
        results.append(tensor_bits(moved).tolist())
    assert results[1] == results[0] and results[2] == results[0]
    sliced = w.clone().view(len(starts), length)
    for a, b in ((0, 1), (1, length // 3), (length // 3, length)):  # columns of the piece, as a shard along dim 1
        part = sliced[:, a:b].contiguous()
        engine.move_([(part, Piece(99, piece.starts + a, b - a))], seeds, c, distribution, "stochastic", once=True)
        sliced[:, a:b] = part
    assert tensor_bits(sliced.view(-1)).tolist() == results[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("distribution", spec.DISTRIBUTIONS)
def test_a_pool_is_summed_as_exactly_as_float32_can(kind, distribution):
    """Against float64: n roundings of the sum and of the products, at most half a unit each, and the last one."""
    n, pool = 4096, 256
    w = 0.02 * np.random.default_rng(1).standard_normal(n).astype(np.float32)
    tensor, piece, seeds = torch.from_numpy(w).to(DTYPES[kind]), Piece.whole("w", n), np.arange(pool, dtype=np.uint64)
    c = (1e-5 * np.random.default_rng(2).standard_normal(pool)).astype(np.float32)
    exact, each, largest = tensor.double(), tensor.clone(), tensor.double().abs()
    for seed, scale in zip(seeds.tolist(), c.astype(np.float64), strict=True):
        z = torch.empty(n)
        engine.fill_(z, seed, piece, distribution)
        exact = exact - scale * z.double()
        largest = torch.maximum(largest, exact.abs() + abs(scale) * z.double().abs())
    engine.move_([(tensor, piece)], seeds, c, distribution, "nearest", once=True)
    engine.move_([(each, piece)], seeds, c, distribution, "nearest")
    last = {"float32": 0.0, "bfloat16": 2.0**-8, "float16": 2.0**-11}[kind] * exact.abs() + 2.0**-25
    assert ((tensor.double() - exact).abs() <= last * 1.001 + 2 * pool * 2.0**-24 * largest).all()
    if kind == "bfloat16":  # what rounding after every step loses: most of the move
        assert (each.double() - exact).abs().mean() > 2 * (tensor.double() - exact).abs().mean()


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_stochastic_is_unbiased_over_a_pool(kind):
    """Also for sums far below the format's spacing: the mean of the error is zero, and no move is lost."""
    n, pool, weight = 400_000, 16, 1.0
    w, piece = torch.full((n,), weight).to(DTYPES[kind]), Piece.whole("w", n)
    spacing = {"bfloat16": 2.0**-7, "float16": 2.0**-10}[kind]
    seeds, c = np.arange(pool, dtype=np.uint64), np.full(pool, -spacing / 200, np.float32)
    exact, arrived, stuck = w.float(), w.clone(), w.clone()
    engine.move_([(exact, piece)], seeds, c, "gaussian", "nearest", once=True)
    engine.move_([(arrived, piece)], seeds, c, "gaussian", "stochastic", once=True)
    engine.move_([(stuck, piece)], seeds, c, "gaussian", "nearest", once=True)
    assert torch.equal(stuck, w)
    error = (arrived.double() - exact.double()) / spacing
    step = (exact.double() - 1) / spacing
    assert abs(float(error.mean())) < 5 * float(error.std()) / np.sqrt(n) + 2**-13
    assert abs(float((error * step).mean())) < 5 * float((error * step).std()) / np.sqrt(n) + 2**-13
