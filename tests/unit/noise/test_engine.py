"""What only the CPU engine can do wrong: threads, forks, slices, lists of seeds. Its bits: test_noise_engines.py."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from hpcfed.noise import engine, spec
from hpcfed.noise.layout import Piece
from tests.support.noise import bits_of, tensor_bits, tensor_of


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
