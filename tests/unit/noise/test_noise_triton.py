"""The GPU engine equals the specification bit for bit: on a GPU where there is one, else in Triton's interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcfed.errors import ConfigError
from hpcfed.layout import Piece
from hpcfed.noise import engine, spec

from .helpers import DTYPES, array_of, bits_from, bits_of, random_weights, read_golden, tensor_bits, tensor_of
from .test_noise_engine import KINDS, UNSIGNED, offsets, words64

try:
    from hpcfed.noise import triton
except ImportError:
    assert not os.environ.get("CI"), "CI must run these tests: Triton is missing"
    pytest.skip("no Triton here: pip install triton", allow_module_level=True)

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the interpreter is NumPy, which warns of infinities


def examples(n: int) -> settings:
    """A program takes the interpreter a twentieth of a second, whatever its size."""
    return settings(max_examples=n * 20 if GPU else n, deadline=None, derandomize=not GPU)


@st.composite
def pieces(draw: st.DrawFn) -> Piece:
    """One run of up to two tiles, or a few short ones: at any offsets, or equally far apart; aligned or not."""
    runs, step = draw(st.sampled_from([1, 1, 2, 3])), draw(st.sampled_from([1, 16]))
    length = step * draw(st.integers(1, (6000 if runs == 1 else 400) // step))
    first = draw(offsets) // step * step
    if draw(st.booleans()):
        starts = [first + i * step * 1111 for i in range(runs)]
    else:
        starts = [first, *(draw(offsets) for _ in range(runs - 1))]
    return Piece(draw(words64), np.array(starts, np.int64), length)


def here(a: np.ndarray, kind: str) -> torch.Tensor:
    return tensor_of(a, kind).to(DEVICE)


def same(t: torch.Tensor, expected: np.ndarray) -> bool:
    return bool((tensor_bits(t.cpu()) == bits_of(expected)).all())


@examples(10)
@given(pieces(), words64, st.sampled_from(KINDS), st.sampled_from(spec.DISTRIBUTIONS))
def test_fill_equals_spec(piece, seed, kind, distribution):
    out = torch.full((piece.numel,), 77, dtype=DTYPES[kind], device=DEVICE)
    triton.fill_(out, seed, piece, distribution)
    assert same(out, spec.fill(seed, piece, distribution, kind))


@examples(12)
@given(
    pieces(), words64, st.sampled_from(KINDS), st.sampled_from(spec.DISTRIBUTIONS),
    st.sampled_from([1e-3, -0.1, 1e-42, 3e38, 0.0]),
)  # fmt: skip
def test_perturb_equals_spec(piece, seed, kind, distribution, mu):
    w = random_weights(piece.numel, kind, seed % 2**32)
    tensor = here(w, kind)
    plus, minus, alone = (torch.empty_like(tensor) for _ in range(3))
    triton.perturb(tensor, plus, minus, seed, mu, piece, distribution)
    seeds = torch.from_numpy(np.array([5, seed], np.uint64).view(np.int64)).to(DEVICE)
    triton.perturb(tensor, alone, None, seeds[1:], mu, piece, distribution)  # by a seed that is on the device
    up, down = spec.perturb(w, seed, mu, piece, distribution, kind)
    assert same(plus, up) and same(minus, down) and same(alone, up)
    assert same(tensor, w)  # only read


@examples(40)
@given(
    pieces(), st.lists(words64, max_size=3), st.sampled_from(KINDS), st.sampled_from(spec.DISTRIBUTIONS),
    st.sampled_from(spec.ROUNDINGS), st.sampled_from([1e-6, 1e-3, -2.0, 1e-42, 1e38, 0.0]), st.booleans(),
)  # fmt: skip
def test_move_equals_spec(piece, seeds, kind, distribution, rounding, scale, once):
    w = random_weights(piece.numel, kind, len(seeds))
    c = np.array([scale, 0.0, -scale / 3][: len(seeds)], np.float32)
    names, tensor = np.array(seeds, np.uint64), here(w, kind)
    triton.move_([(tensor, piece)], names, c, distribution, rounding, once=once)
    moved = spec.move_once if once else spec.move
    assert same(tensor, moved(w, names, c, piece, distribution, rounding, kind))


@pytest.fixture
def one_tile(monkeypatch):
    """65,536 elements a program: sixteen times as fast in the interpreter, and no bit may depend on it."""
    if not GPU:
        monkeypatch.setattr(triton, "GROUPS", 512)
        triton._indices.cache_clear()
    yield
    triton._indices.cache_clear()


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
@pytest.mark.parametrize("rounding", spec.ROUNDINGS)
@pytest.mark.usefixtures("one_tile")
def test_every_16_bit_weight_moves_as_the_spec_says(kind, rounding):
    w = array_of(np.arange(2**16, dtype=np.uint16), kind)
    piece, seeds = Piece(3, np.array([2**33 + 5]), 2**16), np.array([11, 12, 13], np.uint64)
    c = np.array([1e-9, -1e-3, 40.0], np.float32)
    for once in (False, True):
        tensor = here(w, kind)
        triton.move_([(tensor, piece)], seeds, c, "gaussian", rounding, once=once)
        moved = spec.move_once if once else spec.move
        assert same(tensor, moved(w, seeds, c, piece, "gaussian", rounding, kind))


@pytest.mark.parametrize(("distribution", "width"), [("gaussian", 96), ("rademacher", 130)])
def test_rows_of_an_embedding_are_rows_of_the_whole(distribution, width):
    rows = torch.tensor([49, 0, 7, 7], device=DEVICE)
    for kind, piece in (("bfloat16", Piece.whole("e", 50 * width)), ("float32", Piece(5, np.array([48]), 50 * width))):
        w = here(random_weights(50 * width, kind, 3), kind).view(50, width)
        full, low = torch.empty_like(w), torch.empty_like(w)
        triton.perturb(w, full, low, 9, 0.3, piece, distribution)
        for chosen in (rows, rows[:1], rows[:0]):
            plus, minus = (torch.empty(len(chosen), width, dtype=w.dtype, device=DEVICE) for _ in range(2))
            triton.perturb_rows(w, chosen, plus, minus, 9, 0.3, piece, distribution)
            assert same(plus, spec_bits(full[chosen])) and same(minus, spec_bits(low[chosen]))
            on_cpu = torch.empty(len(chosen), width, dtype=w.dtype)
            engine.perturb_rows(w.cpu(), chosen.cpu(), on_cpu, None, 9, 0.3, piece, distribution)
            assert same(on_cpu, spec_bits(plus))


def spec_bits(t: torch.Tensor) -> np.ndarray:
    return tensor_bits(t.cpu().contiguous())


@examples(15)
@given(pieces(), st.sampled_from(list(UNSIGNED)))
def test_fingerprint_equals_spec(piece, dtype):
    top = 2 if dtype == torch.bool else 256
    size = np.dtype(UNSIGNED[dtype]).itemsize
    raw = np.random.default_rng(piece.key).integers(0, top, piece.numel * size).astype(np.uint8)
    tensor = torch.from_numpy(raw.copy()).view(dtype).to(DEVICE)
    name = str(dtype).removeprefix("torch.")
    assert triton.fingerprint(tensor, piece) == spec.fingerprint(raw.view(UNSIGNED[dtype]), name, piece)


def piece_at(line: dict[str, str], n: int) -> Piece:
    return Piece(int(line["key"], 16), np.array([int(line["first"], 16)]), n)


def test_known_directions_and_fingerprints():
    for (distribution,), line in read_golden("noise_directions.txt"):
        out = torch.empty(8, device=DEVICE)
        triton.fill_(out, int(line["seed"], 16), piece_at(line, 8), distribution)
        assert tensor_bits(out.cpu()).tolist() == bits_from(line["z"]).tolist()
    for (dtype,), line in read_golden("noise_fingerprint.txt"):
        raw = bits_from(line["raw"])
        tensor = torch.from_numpy(raw.view(f"i{raw.itemsize}")).view(getattr(torch, dtype)).to(DEVICE)
        assert triton.fingerprint(tensor, piece_at(line, len(raw))) == int(line["fingerprint"], 16)


def test_known_perturbed_weights():
    for (kind, distribution), line in read_golden("noise_perturb.txt"):
        w = here(array_of(bits_from(line["w"]), kind), kind)
        plus, minus = torch.empty_like(w), torch.empty_like(w)
        mu = float(bits_from(line["mu"]).view(np.float32)[0])
        triton.perturb(w, plus, minus, int(line["seed"], 16), mu, piece_at(line, len(w)), distribution)
        assert tensor_bits(plus.cpu()).tolist() == bits_from(line["plus"]).tolist()
        assert tensor_bits(minus.cpu()).tolist() == bits_from(line["minus"]).tolist()


@pytest.mark.parametrize("once", [False, True])
def test_known_moves(once):
    for (kind, distribution, rounding), line in read_golden("noise_move_once.txt" if once else "noise_move.txt"):
        tensor = here(array_of(bits_from(line["w"]), kind), kind)
        seeds, c = bits_from(line["seeds"]), bits_from(line["c"]).view(np.float32)
        triton.move_([(tensor, piece_at(line, len(tensor)))], seeds, c, distribution, rounding, once=once)
        assert tensor_bits(tensor.cpu()).tolist() == bits_from(line["out"]).tolist()


def test_nothing_to_do():
    empty, none = Piece(1, np.zeros(0, np.int64), 7), torch.empty(0, device=DEVICE)
    triton.fill_(none, 1, empty, "gaussian")
    triton.move_([(none, empty)], np.array([1], np.uint64), np.array([1], np.float32), "gaussian", "nearest")
    assert triton.fingerprint(none, empty) == 0
    payload = here(np.array([0x7FC12345, 0xFF812345], np.uint32).view(np.float32), "float32")
    kept, zeros = payload.clone(), np.zeros(2, np.float32)
    triton.move_([(payload, Piece.whole("w", 2))], np.zeros(0, np.uint64), zeros[:0], "gaussian", "nearest")
    triton.move_([(payload, Piece.whole("w", 2))], np.zeros(2, np.uint64), zeros, "gaussian", "nearest", once=True)
    assert same(payload, spec_bits(kept))  # no step, not even a NaN rewritten


def test_arguments_that_cannot_be_meant_are_refused():
    piece, w = Piece.whole("w", 12), torch.zeros(3, 4, device=DEVICE)
    with pytest.raises(AssertionError, match="contiguous"):
        triton.fill_(w.t(), 1, piece, "gaussian")
    with pytest.raises(AssertionError, match="piece of 12 elements for a tensor of 4"):
        triton.fill_(w[0], 1, piece, "gaussian")
    with pytest.raises(AssertionError):
        triton.perturb(w, w.to(torch.bfloat16), None, 1, 1e-3, piece, "gaussian")
    seed = torch.ones(1, dtype=torch.int64)
    with pytest.raises(AssertionError, match=r"a seed is int64 \[1\], beside w"):
        triton.perturb(w, w.clone(), None, seed.to(DEVICE, torch.int32), 1e-3, piece, "gaussian")
    with pytest.raises(AssertionError, match="the CPU engine takes a seed as an int"):
        engine.perturb(w.cpu(), w.cpu(), None, seed, 1e-3, piece, "gaussian")
    with pytest.raises(AssertionError, match="moved twice in one launch"):
        steps = np.ones(1, np.uint64), np.ones(1, np.float32)
        triton.move_([(w, piece), (w, piece)], *steps, "gaussian", "nearest")


@pytest.mark.skipif(not GPU, reason="no GPU here: its tensors cannot be made")
def test_the_door_sends_tensors_of_a_gpu_to_triton():
    piece, out = Piece.whole("w", 5000), torch.empty(5000, device="cuda")
    engine.fill_(out, 3, piece, "gaussian")
    on_cpu = torch.empty(5000)
    engine.fill_(on_cpu, 3, piece, "gaussian")
    assert torch.equal(out.cpu(), on_cpu)
    assert engine.fingerprint(out, piece) == engine.fingerprint(on_cpu, piece)


@pytest.mark.skipif(not GPU, reason="no GPU here: nothing can be captured")
def test_a_replayed_graph_draws_the_direction_that_its_seed_names_by_then():
    w, piece, rows = torch.zeros(50, 100, device="cuda"), Piece.whole("w", 5000), torch.tensor([7, 0], device="cuda")
    seed, plus, some = torch.zeros(1, dtype=torch.int64, device="cuda"), torch.empty_like(w), torch.empty_like(w[:2])

    def both() -> None:
        engine.perturb(w, plus, None, seed, 1.0, piece, "gaussian")
        engine.perturb_rows(w, rows, some, None, seed, 1.0, piece, "gaussian")

    both()  # compiles, which a capture cannot
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        both()
    for name in (7, 2**64 - 8):
        seed.copy_(torch.from_numpy(np.array([name], np.uint64).view(np.int64)))
        graph.replay()
        assert same(plus.flatten(), spec.fill(name, piece, "gaussian", "float32")) and torch.equal(some, plus[rows])


def test_other_devices_are_refused():
    with pytest.raises(ConfigError, match="on meta: directions are drawn on CPUs and on CUDA devices"):
        engine.fill_(torch.empty(4, device="meta"), 1, Piece.whole("w", 4), "gaussian")


def test_compiled_code_keeps_the_roundings(tmp_path):
    """The interpreter cannot show it: for an H100, nothing is contracted, no denormal is flushed, words stay put."""
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"TRITON_CACHE_DIR": str(tmp_path)}
    file = Path(__file__).with_name("compile_kernels.py")
    done = subprocess.run([sys.executable, file], env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    for name, code in json.loads(done.stdout).items():
        assert code["contracted"] == code["may be contracted"] == code["flushed"] == 0, name
        assert code["multiplied"] > 0 or name == "fingerprint", name
        if name not in ("fingerprint", "perturb anything"):  # which adds up, which may start anywhere
            assert code["barriers"] == 0 and code["wide loads"] > 8 and code["wide stores"] >= 8, name  # a slot each
