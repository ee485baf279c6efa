"""What only the GPU engine can do wrong, on a GPU or in Triton's interpreter. Its bits: test_cpu.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hpcfed.errors import ConfigError
from hpcfed.noise import engine, spec
from hpcfed.noise.layout import Piece
from tests.support.harness import ROOT
from tests.support.noise import random_weights, tensor_bits, tensor_of
from tests.support.noise_engines import DEVICE, GPU, KINDS, examples, same, tiled_pieces, words64

try:
    from hpcfed.noise import triton
except ImportError:
    assert not os.environ.get("CI"), "CI must run these tests: Triton is missing"
    pytest.skip("no Triton here: pip install triton", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the interpreter is NumPy, which warns of infinities


@examples(12)
@given(
    tiled_pieces(), words64, st.sampled_from(KINDS), st.sampled_from(spec.DISTRIBUTIONS),
    st.sampled_from([1e-3, -0.1, 1e-42, 3e38, 0.0]),
)  # fmt: skip
def test_a_seed_may_be_on_the_device(piece, seed, kind, distribution, mu):
    w = random_weights(piece.numel, kind, seed % 2**32)
    tensor = tensor_of(w, kind).to(DEVICE)
    alone = torch.empty_like(tensor)
    seeds = torch.from_numpy(np.array([5, seed], np.uint64).view(np.int64)).to(DEVICE)
    triton.perturb(tensor, alone, None, seeds[1:], mu, piece, distribution)
    assert same(alone, spec.perturb(w, seed, mu, piece, distribution, kind)[0])
    assert same(tensor, w)  # only read


@pytest.mark.parametrize(("distribution", "width"), [("gaussian", 96), ("rademacher", 130)])
def test_rows_of_an_embedding_are_rows_of_the_whole(distribution, width):
    rows = torch.tensor([49, 0, 7, 7], device=DEVICE)
    for kind, piece in (("bfloat16", Piece.whole("e", 50 * width)), ("float32", Piece(5, np.array([48]), 50 * width))):
        w = tensor_of(random_weights(50 * width, kind, 3), kind).to(DEVICE).view(50, width)
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
    file = ROOT / "tests" / "support" / "compile_kernels.py"
    done = subprocess.run([sys.executable, file], env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    for name, code in json.loads(done.stdout).items():
        assert code["contracted"] == code["may be contracted"] == code["flushed"] == 0, name
        assert code["multiplied"] > 0 or name == "fingerprint", name
        if name not in ("fingerprint", "perturb anything"):  # which adds up, which may start anywhere
            assert code["barriers"] == 0 and code["wide loads"] > 8 and code["wide stores"] >= 8, name  # a slot each
