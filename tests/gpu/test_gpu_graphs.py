"""CUDA graphs of the probe on a GPU: the bits of eager runs, and eager runs where a model cannot be captured."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hpcfed.messages import Update
from hpcfed.probe import Probe
from hpcfed.probe.slopes import from_logits, slopes_of
from hpcfed.probe.trial import bound_probe
from hpcfed.tasks import Batch
from hpcfed.weights import Weights
from hpcfed.weights import mover as update
from tests.support.small import tiny_batch, tiny_model

try:
    from hpcfed.noise import triton  # noqa: F401
except ImportError:
    assert not os.environ.get("CI"), "CI must run these tests: Triton is missing"
    pytest.skip("no Triton here: pip install triton", allow_module_level=True)

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
GPU = torch.device("cuda")
MU = 0.01


def on_gpu(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.to(GPU) for k, v in inputs.items()}


def squares(logits: Tensor, batch: Batch) -> Tensor:
    return logits.float().square().flatten(1).mean(1)


def pair_of(model: nn.Module, held: Weights, inputs: dict[str, Tensor]) -> list[Probe]:
    """An eager probe and a graphed one."""
    return [bound_probe(inputs, model, lambda i: model(**i).logits, held, "gaussian", graphs=on) for on in (0, 1)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["opt", "llama", "roberta", "vit", "resnet"])
def test_replayed_logits_have_the_bits_of_eager_ones(kind, dtype):
    """Two shapes in turn, other inputs and seeds each time, and the weights move in between."""
    model = tiny_model(kind, dtype=dtype).to(GPU)
    held = Weights(model)
    first = {k: v.to(dtype) if v.is_floating_point() else v for k, v in on_gpu(tiny_batch(kind, 4)).items()}
    eager, graphed = pair_of(model, held, first)
    for seed in range(6):
        for rows in (4, 6):
            inputs = on_gpu(tiny_batch(kind, rows, seed=seed))
            inputs = {k: v.to(dtype) if v.is_floating_point() else v for k, v in inputs.items()}
            expected = eager.logits(inputs, seed, MU)
            assert all(map(torch.equal, graphed.logits(inputs, seed, MU), expected))
        update.apply_(held, [Update(np.array([seed], np.uint64), np.ones(1, np.float32), 1e-3)], "gaussian", "nearest")
    assert graphed.mode == "dual" and graphed.graphs is not None
    assert (graphed.graphs.count, graphed.graphs.notes) == (2, [])


def test_a_batch_of_known_padding_is_replayed_with_its_own():
    """The real tokens lie elsewhere each time; their number is the same."""
    model = tiny_model("opt").to(GPU)
    eager, graphed = pair_of(model, Weights(model), on_gpu(tiny_batch("opt")))
    for seed in range(5):
        inputs = tiny_batch("opt", seed=seed)
        inputs = {k: v.roll(seed, 0) for k, v in inputs.items()}
        real = inputs["attention_mask"].flatten().nonzero().squeeze(1).to(GPU)
        inputs = on_gpu(inputs)
        expected, got = (probe.logits(inputs, seed, MU, real) for probe in (eager, graphed))
        assert eager.packs and graphed.packs
        assert all(map(torch.equal, got, expected))
    assert graphed.graphs is not None and (graphed.graphs.count, graphed.graphs.notes) == (1, [])


def test_logits_outlive_the_next_replay():
    model, inputs = tiny_model("vit").to(GPU), on_gpu(tiny_batch("vit"))
    _, graphed = pair_of(model, Weights(model), inputs)
    for _ in range(2):
        graphed.logits(inputs, 1, MU)
    first = graphed.logits(inputs, 1, MU)
    kept = [x.clone() for x in first]
    assert not torch.equal(graphed.logits(inputs, 2, MU)[0], first[0])
    assert all(map(torch.equal, first, kept))


@pytest.mark.parametrize("kind", ["opt", "vit"])
def test_graphed_rounds_end_where_their_replay_on_the_cpu_ends(kind):
    base = tiny_model(kind, dtype=torch.bfloat16)
    model, inputs = copy.deepcopy(base).to(GPU), on_gpu(tiny_batch(kind))
    inputs = {k: v.bfloat16() if v.is_floating_point() else v for k, v in inputs.items()}
    held, alone, batch = Weights(model), Weights(base), Batch(inputs, torch.zeros(4, dtype=torch.int64, device=GPU))
    _, probe = pair_of(model, held, inputs)
    updates = []
    for seed in range(20):
        p, _ = slopes_of(probe, from_logits(squares), [(batch, np.arange(4))], 4, [seed], MU)
        sign = np.array([1 if p.sum() > 0 else -1], np.float32)
        updates.append(Update(np.array([seed], np.uint64), sign, 1e-3))
        update.apply_(held, updates[-1:], "gaussian", "stochastic")
    update.apply_(alone, updates, "gaussian", "stochastic")
    assert probe.graphs is not None and (probe.graphs.count, probe.graphs.notes) == (1, [])
    assert held.fingerprint() == alone.fingerprint()


def test_a_model_that_waits_for_the_device_runs_eagerly():
    model, inputs = tiny_model("vit").to(GPU), on_gpu(tiny_batch("vit"))

    def waits(inputs: dict[str, Tensor]) -> Tensor:
        assert inputs["pixel_values"].abs().sum().item() > 0
        return model(**inputs).logits

    eager, graphed = (bound_probe(inputs, model, waits, Weights(model), "gaussian", graphs=on) for on in (0, 1))
    stream = torch.cuda.current_stream()
    for seed in range(5):
        assert all(map(torch.equal, graphed.logits(inputs, seed, MU), eager.logits(inputs, seed, MU)))
        assert torch.cuda.current_stream() == stream
    assert graphed.mode == "dual" and graphed.graphs is not None and graphed.graphs.count == 0
    assert len(graphed.graphs.notes) == 1 and "capturing one failed" in graphed.graphs.notes[0]


def test_a_run_ends_in_the_same_weights_with_graphs_and_without(tmp_path):
    ends = []
    for graphs in ("false", "true"):
        out = tmp_path / graphs
        line = [sys.executable, "-m", "hpcfed", "train", "digits", "--quiet", "--out", str(out)]
        for setting in ("rounds=20", "eval_every=0", "mesh.device=cuda", f"mesh.graphs={graphs}"):
            line += ["--set", setting]
        subprocess.run(line, check=True)
        ends.append(json.loads((out / "summary.json").read_text())["fingerprint"])
    assert ends[0] == ends[1]
