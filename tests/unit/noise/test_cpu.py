"""Every engine equals the specification bit for bit: on CPUs, and on a GPU or, without one, in Triton's interpreter.

What only one of them can do wrong is in test_engine.py and test_triton.py.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hpcfed.noise import spec
from hpcfed.noise.layout import Piece
from tests.support.noise import DTYPES, array_of, bits_from, random_weights, read_golden, tensor_bits
from tests.support.noise_engines import GPU, KINDS, UNSIGNED, Engine, each_engine, same, triton, words64

pytestmark = each_engine
kinds, distributions = st.sampled_from(KINDS), st.sampled_from(spec.DISTRIBUTIONS)


def test_fill_equals_spec(engine: Engine) -> None:
    @engine.examples(200, 10)
    @given(engine.pieces(), words64, kinds, distributions)
    def check(piece, seed, kind, distribution):
        out = torch.full((piece.numel,), 77, dtype=DTYPES[kind], device=engine.device)
        engine.module.fill_(out, seed, piece, distribution)
        assert same(out, spec.fill(seed, piece, distribution, kind))

    check()


def test_perturb_equals_spec(engine: Engine) -> None:
    @engine.examples(200, 12)
    @given(engine.pieces(), words64, kinds, distributions, st.sampled_from([1e-3, -0.1, 1e-42, 3e38, 0.0]))
    def check(piece, seed, kind, distribution, mu):
        w = random_weights(piece.numel, kind, seed % 2**32)
        tensor = engine.here(w, kind)
        plus, minus, alone = (torch.empty_like(tensor) for _ in range(3))
        engine.module.perturb(tensor, plus, minus, seed, mu, piece, distribution)
        engine.module.perturb(tensor, alone, None, seed, mu, piece, distribution)
        up, down = spec.perturb(w, seed, mu, piece, distribution, kind)
        assert same(plus, up) and same(minus, down) and same(alone, up)
        assert same(tensor, w)  # only read

    check()


def test_move_equals_spec(engine: Engine) -> None:
    """Also one step after the other; move_(once=True) of many seeds on the CPU: test_engine.py."""

    @engine.examples(400, 40)
    @given(
        engine.pieces(), st.lists(words64, max_size=engine.most), kinds, distributions, st.sampled_from(spec.ROUNDINGS),
        st.sampled_from([1e-6, 1e-3, -2.0, 1e-42, 1e38, 0.0]), st.booleans(), st.booleans(),
    )  # fmt: skip
    def check(piece, seeds, kind, distribution, rounding, scale, gap, once):
        w = random_weights(piece.numel, kind, len(seeds))
        c = [0.0 if gap and i == 1 else (-scale if gap and i == 2 else scale) / (i + 1) for i in range(len(seeds))]
        names, tensor = np.array(seeds, np.uint64), engine.here(w, kind)
        engine.move(tensor, names, c, piece, distribution, rounding, once)
        moved = spec.move_once if once else spec.move
        assert same(tensor, moved(w, names, np.array(c, np.float32), piece, distribution, rounding, kind))
        if not (once or engine.slow):
            steps = engine.here(w, kind)
            for i in range(len(seeds)):
                engine.move(steps, names[i : i + 1], c[i : i + 1], piece, distribution, rounding, False)
            assert same(steps, tensor_bits(tensor))

    check()


@pytest.fixture
def one_tile(engine: Engine, monkeypatch: pytest.MonkeyPatch):
    """65,536 elements a program: sixteen times as fast in the interpreter, and no bit may depend on it."""
    if not engine.slow:
        yield
        return
    if not GPU:
        monkeypatch.setattr(triton, "GROUPS", 512)
        triton._indices.cache_clear()
    yield
    triton._indices.cache_clear()


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
@pytest.mark.parametrize("rounding", spec.ROUNDINGS)
@pytest.mark.usefixtures("one_tile")
def test_every_16_bit_weight_moves_as_the_spec_says(engine: Engine, kind: str, rounding: str) -> None:
    w = array_of(np.arange(2**16, dtype=np.uint16), kind)
    piece, names = Piece(3, np.array([2**33 + 5]), 2**16), np.array([11, 12, 13], np.uint64)
    cases = [([1e-9, -1e-3, 40.0], once) for once in (False, True)]
    if not engine.slow:
        cases += [([scale, -scale / 3], False) for scale in (1e-9, 1e-7, 1e-4, 0.5, 40.0)]
    for c, once in cases:
        tensor, seeds = engine.here(w, kind), names[: len(c)]
        engine.move(tensor, seeds, c, piece, "gaussian", rounding, once)
        moved = spec.move_once if once else spec.move
        assert same(tensor, moved(w, seeds, np.array(c, np.float32), piece, "gaussian", rounding, kind))


def test_fingerprint_equals_spec(engine: Engine) -> None:
    @engine.examples(200, 15)
    @given(engine.pieces(), st.sampled_from(list(UNSIGNED)))
    def check(piece, dtype):
        top = 2 if dtype == torch.bool else 256
        size = np.dtype(UNSIGNED[dtype]).itemsize
        raw = np.random.default_rng(piece.key).integers(0, top, piece.numel * size).astype(np.uint8)
        tensor = torch.from_numpy(raw.copy()).view(dtype).to(engine.device)
        name = str(dtype).removeprefix("torch.")
        assert engine.module.fingerprint(tensor, piece) == spec.fingerprint(raw.view(UNSIGNED[dtype]), name, piece)

    check()


def piece_at(line: dict[str, str], n: int) -> Piece:
    return Piece(int(line["key"], 16), np.array([int(line["first"], 16)]), n)


def test_known_directions_and_fingerprints(engine: Engine) -> None:
    for (distribution,), line in read_golden("noise_directions.txt"):
        out = torch.empty(8, device=engine.device)
        engine.module.fill_(out, int(line["seed"], 16), piece_at(line, 8), distribution)
        assert same(out, bits_from(line["z"]))
    for (dtype,), line in read_golden("noise_fingerprint.txt"):
        raw = bits_from(line["raw"])
        tensor = torch.from_numpy(raw.view(f"i{raw.itemsize}")).view(getattr(torch, dtype)).to(engine.device)
        assert engine.module.fingerprint(tensor, piece_at(line, len(raw))) == int(line["fingerprint"], 16)


def test_known_perturbed_weights(engine: Engine) -> None:
    for (kind, distribution), line in read_golden("noise_perturb.txt"):
        w = engine.here(array_of(bits_from(line["w"]), kind), kind)
        plus, minus = torch.empty_like(w), torch.empty_like(w)
        mu = float(bits_from(line["mu"]).view(np.float32)[0])
        engine.module.perturb(w, plus, minus, int(line["seed"], 16), mu, piece_at(line, len(w)), distribution)
        assert same(plus, bits_from(line["plus"])) and same(minus, bits_from(line["minus"]))


@pytest.mark.parametrize("once", [False, True])
def test_known_moves(engine: Engine, once: bool) -> None:
    for (kind, distribution, rounding), line in read_golden("noise_move_once.txt" if once else "noise_move.txt"):
        tensor = engine.here(array_of(bits_from(line["w"]), kind), kind)
        seeds, c = bits_from(line["seeds"]), bits_from(line["c"]).view(np.float32)
        engine.move(tensor, seeds, c, piece_at(line, len(tensor)), distribution, rounding, once)
        assert same(tensor, bits_from(line["out"]))


def test_nothing_to_do(engine: Engine) -> None:
    empty, none, seeds = (
        Piece(1, np.zeros(0, np.int64), 7),
        torch.empty(0, device=engine.device),
        np.arange(2, dtype="u8"),
    )
    engine.module.fill_(none, 1, empty, "gaussian")
    engine.module.perturb(none, none.clone(), none.clone(), 1, 1e-3, empty, "gaussian")
    engine.move(none, seeds[1:], [1], empty, "gaussian", "nearest", False)
    assert engine.module.fingerprint(none, empty) == 0
    assert engine.module.fingerprint(none, Piece(1, np.zeros(1, np.int64), 0)) == 0
    decision = np.array([0x7FC12345, 0xFF812345], np.uint32).view(np.float32)
    kept = engine.here(decision, "float32")
    engine.move(kept, seeds[:0], [], Piece.whole("w", 2), "gaussian", "nearest", False)
    engine.move(kept, seeds, [0, 0], Piece.whole("w", 2), "gaussian", "nearest", True)
    assert same(kept, decision)  # no step, not even a NaN rewritten
