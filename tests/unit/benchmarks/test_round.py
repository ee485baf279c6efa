"""benchmarks/round.py measures what it says: the variants move the weights as a round does, the parts are the probe's.

No figure is looked at; tests/gpu has the same for benchmarks/gpu_round.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks import reference
from benchmarks import round as benchmark
from hpcfed.probe import draws
from tests.support.small import tiny_model


@pytest.fixture
def model() -> nn.Module:
    return tiny_model("opt", dtype=torch.bfloat16)


@pytest.fixture(autouse=True)
def same_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(draws.BLOCK, "cpu", draws.BLOCK["cpu"])  # which the benchmark sets


BATCH = benchmark.make_batch("2x6", words=40)


def test_the_variants_and_their_parts(model: nn.Module) -> None:
    runs = benchmark.variants(model, BATCH, [])
    assert list(runs) == ["forwards", "round", "round, rademacher", "in-place"]
    ours = runs["round"]
    assert isinstance(ours, benchmark.Ours)
    for name, run in runs.items():
        before = ours.weights.fingerprint()
        run(5)
        assert (ours.weights.fingerprint() == before) == (name == "forwards"), name
    assert ours.probe.mode == "dual"
    table = benchmark.timed(runs, 3)
    assert list(table) == list(runs) and table["forwards"]["ratio"] == 1
    assert [name for name, row in table.items() if "parts" in row] == ["round", "round, rademacher"]
    assert list(table["round"]["parts"]) == ["forwards", "directions", "update"]
    assert min(table["round"]["parts"].values()) > 0


def test_every_size_of_block_is_the_same_round(model: nn.Module) -> None:
    runs = benchmark.variants(model, BATCH, [8, 24])
    assert list(runs) == ["forwards", "round, block 2^8", "round, block 2^24"]
    start, prints = {name: p.clone() for name, p in model.state_dict().items()}, set()
    for n in (8, 24):
        model.load_state_dict(start)
        run = runs[f"round, block 2^{n}"]
        run(3)
        assert isinstance(run, benchmark.Ours) and draws.BLOCK["cpu"] == 2**n
        prints.add(run.weights.fingerprint())
    assert len(prints) == 1


def test_in_place_takes_the_step_of_a_probe(model: nn.Module) -> None:
    """In fp32, apart from what its perturbations leave behind: w - lr z or w + lr z, z from the seed."""
    model.float()
    start = [p.clone() for p in model.parameters()]
    reference.in_place(model, partial(benchmark.mean_loss, model, BATCH), 7)
    torch.manual_seed(7)
    z = torch.cat([torch.normal(0.0, 1.0, p.shape).flatten() for p in start])
    moved = torch.cat([(p - q).flatten() for p, q in zip(model.parameters(), start, strict=True)]).double()
    step = float(moved @ z.double() / (z.double() @ z.double()))
    assert abs(step) == pytest.approx(reference.LR, rel=0.05)


def test_a_batch_of_sst2_s_lengths() -> None:
    batch = benchmark.make_batch("sst2")
    assert batch.inputs["attention_mask"].sum(1).tolist() == reference.SST2 and batch.real is not None
    assert BATCH.inputs["input_ids"].shape == (2, 6) and BATCH.real is None
    logits = torch.randn(16, 43, 50_272, generator=torch.Generator().manual_seed(0))
    alone = logits[3, -reference.SST2[3] :], batch.inputs["input_ids"][3, -reference.SST2[3] :]
    expected = torch.nn.functional.cross_entropy(alone[0][:-1], alone[1][1:])
    torch.testing.assert_close(benchmark.losses(logits, batch)[3], expected)


def test_the_script_starts_anywhere_and_reads_its_arguments(tmp_path: Path) -> None:
    chosen = benchmark.arguments(["--block", "20", "24", "--shape", "2x4"])
    assert (chosen.block, chosen.shape, chosen.dtype) == ([20, 24], ["2x4"], ["float32", "bfloat16"])
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    line = [sys.executable, benchmark.__file__, "--help"]
    done = subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0 and "--block" in done.stdout, done.stderr
