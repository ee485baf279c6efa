"""A round on a GPU: the same perturbed weights, moves and fingerprints as on a CPU, and nobody waits inside the probe.

Without a GPU the first test runs its engine in Triton's interpreter; the others are skipped.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import gpu_round, reference
from hpcfed.messages import Update
from hpcfed.model.head import Inputs, restrict_head
from hpcfed.probe import Probe, draws
from hpcfed.probe.draws import Pass
from hpcfed.probe.slopes import from_logits, slopes_of
from hpcfed.probe.trial import bound_probe
from hpcfed.tasks import Batch
from hpcfed.weights import Weights, weights
from hpcfed.weights import mover as update
from tests.support.small import tiny_batch, tiny_model

try:
    from hpcfed.noise import triton
except ImportError:
    assert not os.environ.get("CI"), "CI must run these tests: Triton is missing"
    pytest.skip("no Triton here: pip install triton", allow_module_level=True)

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
GPU = torch.device("cuda")


def probe_of(model: nn.Module, held: Weights, inputs: Inputs) -> Probe:
    return bound_probe(inputs, model, lambda batch: model(**batch).logits, held, "gaussian")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here: the tests below run its engine for real")
def test_a_round_by_the_interpreted_engine_has_the_bits_of_the_cpu(monkeypatch):
    """Embedding rows, scored rows, a linear layer, a norm: probed, moved (also rounded once) and fingerprinted."""
    model, inputs = tiny_model("opt", dtype=torch.bfloat16), tiny_batch("opt")
    assert restrict_head(model, [7, 300])
    held = Weights(model, ["*embed_tokens*", "*layers.1.fc1*", "*final_layer_norm.weight"])
    probe, start = probe_of(model, held, inputs), copy.deepcopy(model.state_dict())
    updates = [Update(np.array([7, 8], np.uint64), np.array([1, -2], np.float32), 1e-3)] * 2

    def round_() -> tuple[list[bytes], list[str]]:
        model.load_state_dict(start)
        with torch.inference_mode():  # not logits(), which runs two passes where this fails
            logits = [x.view(torch.int16).numpy().tobytes() for x in probe.dual(inputs, Pass(5, 0.01))]
        prints = []
        for once in (False, True):
            update.apply_(held, updates, "gaussian", "stochastic", once=once)
            prints.append(held.fingerprint())
        return logits, prints

    expected = round_()
    for module, names in ((draws, ["perturb", "perturb_rows"]), (update, ["move_"]), (weights, ["fingerprint"])):
        for name in names:
            monkeypatch.setattr(module, name, getattr(triton, name))
    assert probe.mode == "dual" and round_() == expected


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_run_on_the_gpu_is_replayed_on_the_cpu(dtype):
    """100 rounds decided on the GPU, moved there one by one and on the CPU in one pass: one fingerprint."""
    base = tiny_model("opt", dtype=dtype)
    model, inputs = copy.deepcopy(base).to(GPU), {k: v.to(GPU) for k, v in tiny_batch("opt").items()}
    held, alone = Weights(model), Weights(base)
    assert held.fingerprint() == alone.fingerprint()
    probe, batch = probe_of(model, held, inputs), Batch(inputs, torch.zeros(4, dtype=torch.int64, device=GPU))
    updates = []
    for seed in range(100):
        p, _ = slopes_of(
            probe, from_logits(lambda x, _: x.float().square().mean((1, 2))), [(batch, np.arange(4))], 4, [seed], 1e-2
        )
        sign = np.array([1 if p.sum() > 0 else -1], np.float32)
        updates.append(Update(np.array([seed], np.uint64), sign, 1e-3))
        update.apply_(held, updates[-1:], "gaussian", "stochastic")
    update.apply_(alone, updates, "gaussian", "stochastic")
    assert probe.mode == "dual" and {float(u.coefficients[0]) > 0 for u in updates} == {True, False}
    assert held.fingerprint() == alone.fingerprint()


@needs_gpu
@pytest.mark.parametrize("kind", ["opt", "llama", "roberta", "vit"])
def test_both_sides_are_those_of_the_cpu(kind):
    model, inputs = tiny_model(kind), tiny_batch(kind)
    twin = copy.deepcopy(model).to(GPU)
    there = {k: v.to(GPU) for k, v in inputs.items()}
    on_gpu = probe_of(twin, Weights(twin), there).logits(there, 3, 0.01)
    for a, b in zip(probe_of(model, Weights(model), inputs).logits(inputs, 3, 0.01), on_gpu, strict=True):
        torch.testing.assert_close(a, b.cpu(), rtol=1e-3, atol=1e-4)


@needs_gpu
def test_the_probe_and_the_update_do_not_wait_for_the_gpu():
    model, inputs = tiny_model("opt", dtype=torch.bfloat16).to(GPU), {"input_ids": tiny_batch("opt")["input_ids"]}
    inputs = {"input_ids": inputs["input_ids"].to(GPU)}  # transformers itself waits to read an attention mask
    assert restrict_head(model, [7, 300])
    held = Weights(model)
    probe = probe_of(model, held, inputs)
    step = Update(np.array([7], np.uint64), np.ones(1, np.float32), 1e-3)
    for seed in (1, 2):  # the first compiles kernels
        torch.cuda.set_sync_debug_mode("error" if seed == 2 else "default")
        try:
            probe.logits(inputs, seed, 1e-3)
            update.apply_(held, [step], "gaussian", "stochastic")
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert probe.mode == "dual"


# --- the benchmark's logic that needs no GPU ----------------------------------------------------------------------


@pytest.mark.parametrize("name", gpu_round.SHAPES)
def test_the_benchmark_s_models_have_opt_s_parameters(name):
    model = gpu_round.make_model(name, torch.bfloat16, "meta")  # which counts them
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16} and torch.get_default_dtype() == torch.float32


def test_the_benchmark_s_batches():
    batch = gpu_round.make_batch("sst2", "cpu")
    mask = batch.inputs["attention_mask"]
    assert mask.sum(1).tolist() == reference.SST2 and bool(mask[:, -1].all()) and len(reference.SST2) == 16
    assert ((batch.inputs["input_ids"] == reference.PAD) == (mask == 0)).all()
    assert gpu_round.make_batch("256", "cpu").inputs["attention_mask"].sum() == 16 * 256


def test_the_benchmark_s_variants_run_on_a_small_model():
    """On the CPU, without clocks: a round moves the weights by lr z, in-place MeZO too, and losses are the same."""
    model = tiny_model("opt", dtype=torch.bfloat16)
    assert restrict_head(model, [7, 300])
    batch = Batch(tiny_batch("opt"), torch.tensor([0, 1, 0, 1]))
    ours = gpu_round.Round(model, batch, "gaussian")
    loss = partial(gpu_round.mean_loss, model, batch)
    gpu_round.two_forwards(loss)
    for step in (lambda: ours(5), lambda: gpu_round.in_place(model, loss, 5)):
        before = ours.weights.fingerprint()
        step()
        assert ours.weights.fingerprint() != before
    assert ours.probe.mode == "dual"


def test_the_benchmark_s_arguments(monkeypatch, capsys):
    chosen = gpu_round.arguments(["--model", "opt-1.3b", "--tokens", "64", "--json"])
    assert (chosen.model, chosen.tokens, chosen.dtype) == (["opt-1.3b"], ["64"], ["bfloat16", "float16"])
    with pytest.raises(SystemExit):
        gpu_round.arguments(["--tokens", "4096"])
    assert "--tokens 4096: sst2, or a length from 1 to 2048" in capsys.readouterr().err
    if not torch.cuda.is_available():
        monkeypatch.setattr("sys.argv", ["gpu_round.py"])
        with pytest.raises(SystemExit, match="torch sees no GPU here, so nothing can be measured"):
            gpu_round.main()


@needs_gpu
@pytest.mark.parametrize("name", ["feedsign", "fedkseed", "fedavg"])
def test_a_run_on_the_gpu_replays_on_the_cpu(name, tmp_path):
    line = [sys.executable, "-m", "hpcfed", "train", "digits", "--quiet", "--out", str(tmp_path / "run")]
    settings = {"algorithm.name": name, "rounds": "20" if name == "feedsign" else "2", "eval_every": "0"}
    for key, value in settings.items():
        line += ["--set", f"{key}={value}"]
    subprocess.run([*line, "--set", "mesh.device=cuda"], check=True)
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["device"] == "cuda" and summary["peak_gpu_memory_bytes"] > 0
    if name != "fedavg":  # which leaves no orbit
        verify = [sys.executable, "-m", "hpcfed", "orbit", "verify", str(tmp_path / "run"), "--base", "digits-vit"]
        subprocess.run(verify, check=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""})
