"""The CPU engine equals the specification bit for bit, for any piece, dtype, seed, thread count and value."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcfed.layout import Piece
from hpcfed.noise import engine, spec

from .helpers import DTYPES, array_of, bits_from, bits_of, random_weights, read_golden, tensor_bits, tensor_of

KINDS = list(DTYPES)
words64 = st.integers(0, 2**64 - 1)
offsets = st.one_of(
    st.integers(0, 5000),
    st.builds(
        lambda near, by: near + by, st.sampled_from([2**31, 2**32, 2**36, 2**40, 2**58]), st.integers(-3000, 3000)
    ),
    st.integers(0, 2**60),
)


@st.composite
def pieces(draw: st.DrawFn) -> Piece:
    """One run of up to three tiles, or many short ones, at any offsets."""
    runs = draw(st.sampled_from([1, 1, 2, 7]))
    length = draw(st.integers(1, 5000 if runs == 1 else 400))
    return Piece(draw(words64), np.array([draw(offsets) for _ in range(runs)], np.int64), length)


@pytest.fixture(autouse=True)
def default_threads():
    yield
    engine.set_threads(None)


@settings(max_examples=200, deadline=None)
@given(pieces(), words64, st.sampled_from(KINDS), st.sampled_from(spec.DISTRIBUTIONS))
def test_fill_equals_spec(piece, seed, kind, distribution):
    out = torch.full((piece.numel,), 77, dtype=DTYPES[kind])
    engine.fill_(out, seed, piece, distribution)
    assert (tensor_bits(out) == bits_of(spec.fill(seed, piece, distribution, kind))).all()


@settings(max_examples=200, deadline=None)
@given(
    pieces(), words64, st.sampled_from(KINDS), st.sampled_from(spec.DISTRIBUTIONS),
    st.sampled_from([1e-3, -0.1, 1e-42, 3e38, 0.0]),
)  # fmt: skip
def test_perturb_equals_spec(piece, seed, kind, distribution, mu):
    w = random_weights(piece.numel, kind, seed % 2**32)
    tensor = tensor_of(w, kind)
    plus, minus, alone = (torch.empty_like(tensor) for _ in range(3))
    engine.perturb(tensor, plus, minus, seed, mu, piece, distribution)
    engine.perturb(tensor, alone, None, seed, mu, piece, distribution)
    up, down = spec.perturb(w, seed, mu, piece, distribution, kind)
    assert (tensor_bits(plus) == bits_of(up)).all() and (tensor_bits(minus) == bits_of(down)).all()
    assert (tensor_bits(alone) == bits_of(up)).all()
    assert (tensor_bits(tensor) == bits_of(w)).all()  # only read


@settings(max_examples=400, deadline=None)
@given(
    pieces(), st.lists(words64, max_size=5), st.sampled_from(KINDS), st.sampled_from(spec.DISTRIBUTIONS),
    st.sampled_from(spec.ROUNDINGS), st.sampled_from([1e-6, 1e-3, -2.0, 1e-42, 1e38, 0.0]),
)  # fmt: skip
def test_move_equals_spec(piece, seeds, kind, distribution, rounding, scale):
    w = random_weights(piece.numel, kind, len(seeds))
    c = np.array([scale / (i + 1) for i in range(len(seeds))], np.float32)
    names = np.array(seeds, np.uint64)
    once, steps = tensor_of(w, kind), tensor_of(w, kind)
    engine.move_([(once, piece)], names, c, distribution, rounding)
    for i in range(len(seeds)):
        engine.move_([(steps, piece)], names[i : i + 1], c[i : i + 1], distribution, rounding)
    assert (tensor_bits(once) == bits_of(spec.move(w, names, c, piece, distribution, rounding, kind))).all()
    assert (tensor_bits(steps) == tensor_bits(once)).all()


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
@pytest.mark.parametrize("rounding", spec.ROUNDINGS)
def test_every_16_bit_weight_moves_as_the_spec_says(kind, rounding):
    w = array_of(np.arange(2**16, dtype=np.uint16), kind)
    piece, seeds = Piece(3, np.array([2**33 + 5]), 2**16), np.array([11, 12], np.uint64)
    for scale in (1e-9, 1e-7, 1e-4, 0.5, 40.0):
        c = np.array([scale, -scale / 3], np.float32)
        tensor = tensor_of(w, kind)
        engine.move_([(tensor, piece)], seeds, c, "gaussian", rounding)
        assert (tensor_bits(tensor) == bits_of(spec.move(w, seeds, c, piece, "gaussian", rounding, kind))).all()


def test_an_outgrown_float16_stays_infinite():
    """Also between the steps of one sweep, where weights are float32: 65,536 must not come back into range."""
    w = np.full(4096, 65504, np.float16)
    piece, seeds, c = Piece.whole("w", 4096), np.array([1, 1], np.uint64), np.array([40, -60], np.float32)
    for rounding in spec.ROUNDINGS:
        tensor = tensor_of(w, "float16")
        engine.move_([(tensor, piece)], seeds, c, "gaussian", rounding)
        assert (tensor_bits(tensor) == bits_of(spec.move(w, seeds, c, piece, "gaussian", rounding, "float16"))).all()
        assert 0.1 < float(torch.isinf(tensor).float().mean()) < 0.9


UNSIGNED = {
    torch.float32: np.uint32, torch.bfloat16: np.uint16, torch.float16: np.uint16, torch.float64: np.uint64,
    torch.int64: np.uint64, torch.int32: np.uint32, torch.int8: np.uint8, torch.uint8: np.uint8, torch.bool: np.uint8,
}  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(pieces(), st.sampled_from(list(UNSIGNED)))
def test_fingerprint_equals_spec(piece, dtype):
    top = 2 if dtype == torch.bool else 256
    size = np.dtype(UNSIGNED[dtype]).itemsize
    raw = np.random.default_rng(piece.key).integers(0, top, piece.numel * size).astype(np.uint8)
    tensor = torch.from_numpy(raw.copy()).view(dtype)
    name = str(dtype).removeprefix("torch.")
    assert engine.fingerprint(tensor, piece) == spec.fingerprint(raw.view(UNSIGNED[dtype]), name, piece)


def test_known_answers():
    for (kind, distribution), line in read_golden("noise_perturb.txt"):
        w, key = array_of(bits_from(line["w"]), kind), int(line["key"], 16)
        piece = Piece(key, np.array([int(line["first"], 16)]), len(w))
        plus, minus = (torch.empty(len(w), dtype=DTYPES[kind]) for _ in range(2))
        mu = float(bits_from(line["mu"]).view(np.float32)[0])
        engine.perturb(tensor_of(w, kind), plus, minus, int(line["seed"], 16), mu, piece, distribution)
        assert tensor_bits(plus).tolist() == bits_from(line["plus"]).tolist()
        assert tensor_bits(minus).tolist() == bits_from(line["minus"]).tolist()
    for (kind, distribution, rounding), line in read_golden("noise_move.txt"):
        tensor = tensor_of(array_of(bits_from(line["w"]), kind), kind)
        piece = Piece(int(line["key"], 16), np.array([int(line["first"], 16)]), len(tensor))
        c = bits_from(line["c"]).view(np.float32)
        engine.move_([(tensor, piece)], bits_from(line["seeds"]), c, distribution, rounding)
        assert tensor_bits(tensor).tolist() == bits_from(line["out"]).tolist()
    for (kind, distribution, rounding), line in read_golden("noise_move_once.txt"):
        tensor = tensor_of(array_of(bits_from(line["w"]), kind), kind)
        piece = Piece(int(line["key"], 16), np.array([int(line["first"], 16)]), len(tensor))
        c = bits_from(line["c"]).view(np.float32)
        engine.move_([(tensor, piece)], bits_from(line["seeds"]), c, distribution, rounding, once=True)
        assert tensor_bits(tensor).tolist() == bits_from(line["out"]).tolist()
    for (distribution,), line in read_golden("noise_directions.txt"):
        out = torch.empty(8)
        piece = Piece(int(line["key"], 16), np.array([int(line["first"], 16)]), 8)
        engine.fill_(out, int(line["seed"], 16), piece, distribution)
        assert tensor_bits(out).tolist() == bits_from(line["z"]).tolist()
    for (dtype,), line in read_golden("noise_fingerprint.txt"):
        raw = bits_from(line["raw"])
        tensor = torch.from_numpy(raw.view(f"i{raw.itemsize}")).view(getattr(torch, dtype))
        piece = Piece(int(line["key"], 16), np.array([int(line["first"], 16)]), len(raw))
        assert engine.fingerprint(tensor, piece) == int(line["fingerprint"], 16)


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


def test_nothing_to_do():
    empty = Piece(1, np.zeros(0, np.int64), 7)
    none = torch.empty(0)
    engine.fill_(none, 1, empty, "gaussian")
    engine.perturb(none, none.clone(), none.clone(), 1, 1e-3, empty, "gaussian")
    engine.move_([(none, empty)], np.array([1], np.uint64), np.array([1], np.float32), "gaussian", "nearest")
    assert engine.fingerprint(none, empty) == 0
    assert engine.fingerprint(torch.empty(0), Piece(1, np.zeros(1, np.int64), 0)) == 0
    payload = tensor_of(np.array([0x7FC12345, 0xFF812345], np.uint32).view(np.float32), "float32")
    kept = payload.clone()
    engine.move_(
        [(payload, Piece.whole("w", 2))], np.zeros(0, np.uint64), np.zeros(0, np.float32), "gaussian", "nearest"
    )
    assert tensor_bits(payload).tolist() == tensor_bits(kept).tolist()  # no step, not even a NaN rewritten


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
