"""What a round costs beside two plain forward passes and beside the in-place MeZO step, in one run.

    python benchmarks/round.py [--json] [--dtype float32 bfloat16] [--shape 16x32 4x16] [--repeats N] [--threads N]

The model has OPT-125M's shape with random weights; a batch of B sequences of T tokens; the loss is the language-model
loss over the whole vocabulary, so nothing is spared by scoring a few words only. All variants run in turn, `repeats`
times, and each figure is the median. Peak memory is what a fresh process a variant needs above the loaded model.

    forwards   two plain forward passes: what a two-point probe cannot do without
    round      ours: dual forward (directions drawn once), then the update
    in-place   MeZO as published: w += mu z, forward, w -= 2 mu z, forward, w += mu z, w -= lr z; four torch.normal
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

if not __package__:  # a script, which finds its folder's modules but not benchmarks.reference
    sys.path.insert(0, str(Path(__file__).parents[1]))
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as hpcfed sets it, for all variants alike; before torch

import numpy as np
import torch
from torch import Tensor, nn
from transformers import OPTConfig, OPTForCausalLM

from benchmarks.reference import LR, MU, in_place, two_forwards
from hpcfed.messages import Update
from hpcfed.noise import set_threads
from hpcfed.probe import Probe, slopes
from hpcfed.tasks import Batch
from hpcfed.update import apply_
from hpcfed.weights import Weights


def opt_125m(dtype: torch.dtype, layers: int) -> nn.Module:
    """OPT-125M's shape, random weights."""
    torch.manual_seed(0)
    config = OPTConfig(num_hidden_layers=layers, use_cache=False, dropout=0.0)
    assert (config.hidden_size, config.vocab_size) == (768, 50272)
    return OPTForCausalLM(config).to(dtype).eval().requires_grad_(False)


def losses(logits: Tensor, batch: Batch) -> Tensor:
    """Mean language-model loss of each sequence, float32 [B]."""
    ids = batch.inputs["input_ids"]
    flat = nn.functional.cross_entropy(logits[:, :-1].float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    return flat.view(len(ids), -1).mean(1)


def mean_loss(model: nn.Module, batch: Batch) -> float:
    """One forward pass."""
    return losses(model(**batch.inputs).logits, batch).mean().item()


class Ours:
    """A FeedSign round of one client without a network."""

    def __init__(self, model: nn.Module, dtype: torch.dtype, distribution: str) -> None:
        self.weights, self.distribution = Weights(model), distribution
        self.rounding = "nearest" if dtype == torch.float32 else "stochastic"
        self.probe = Probe(model, lambda inputs: model(**inputs).logits, self.weights, distribution)

    def __call__(self, batch: Batch, seed: int) -> None:
        p, _ = slopes(self.probe, losses, [(batch, np.zeros(len(batch.label), np.int64))], 1, [seed], MU)
        update = Update(np.array([seed], np.uint64), np.sign(p[0]).astype(np.float32), LR)
        apply_(self.weights, [update], self.distribution, self.rounding)


def variants(dtype: torch.dtype, layers: int, batch: Batch) -> dict[str, Callable[[int], None]]:
    model = opt_125m(dtype, layers)
    loss = partial(mean_loss, model, batch)
    ours, fast = Ours(model, dtype, "gaussian"), Ours(model, dtype, "rademacher")
    return {
        "forwards": lambda seed: two_forwards(loss),
        "round": lambda seed: ours(batch, seed),
        "round, rademacher": lambda seed: fast(batch, seed),
        "in-place": lambda seed: in_place(model, loss, seed),
    }


def make_batch(size: int, length: int) -> Batch:
    ids = torch.randint(5, 50000, (size, length), generator=torch.Generator().manual_seed(1))
    return Batch({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, torch.zeros(size, dtype=torch.int64))


def timed(runs: dict[str, Callable[[int], None]], repeats: int) -> dict[str, float]:
    """Median seconds of each variant; variants alternate so that a slow moment of the machine hits all."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(-1, repeats):  # -1 warms up: compiles kernels, binds the probe
        for name, run in runs.items():
            began = time.perf_counter()
            run(repeat + 2)
            if repeat >= 0:
                seconds[name].append(time.perf_counter() - began)
    return {name: float(np.median(s)) for name, s in seconds.items()}


def peak_of(name: str, dtype: str, shape: str, layers: int) -> int:
    """Bytes that a fresh process needed at most beyond what it held before its first step (Linux)."""
    line = [sys.executable, __file__, "--peak", name, "--dtype", dtype, "--shape", shape, "--layers", str(layers)]
    return int(subprocess.run(line, check=True, capture_output=True, text=True).stdout.split()[-1])


def measure_peak(name: str, dtype: torch.dtype, shape: tuple[int, int], layers: int) -> int:
    tiny = make_batch(2, 2)
    small = variants(dtype, 1, tiny)
    small[name](1)  # libraries, compiled kernels
    del small
    run = variants(dtype, layers, make_batch(*shape))[name]
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = resident("VmRSS")
    for seed in range(3):
        run(seed)
    return resident("VmHWM") - before


def resident(field: str) -> int:
    """VmRSS (now) or VmHWM (peak) of this process in bytes."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(field))
    return 1024 * int(line.split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--shape", nargs="+", default=["16x32", "4x16"], metavar="BxT")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    set_threads(args.threads)
    shapes = [tuple(int(x) for x in shape.split("x")) for shape in args.shape]
    if args.peak:
        print(measure_peak(args.peak, getattr(torch, args.dtype[0]), shapes[0], args.layers))  # type: ignore[arg-type]
        return
    results = []
    for dtype in args.dtype:
        for size, length in shapes:
            seconds = timed(variants(getattr(torch, dtype), args.layers, make_batch(size, length)), args.repeats)
            for name, s in seconds.items():
                peak = peak_of(name, dtype, f"{size}x{length}", args.layers)
                ratio = s / seconds["forwards"]
                results.append(
                    {"dtype": dtype, "batch": size, "tokens": length, "variant": name, "seconds": s, "ratio": ratio}
                    | {"peak_bytes": peak}
                )
                line = f"{dtype:9} {size:3} x {length:3}  {name:18} {s:7.3f} s"
                print(f"{line}  {ratio:5.2f} x forwards  +{peak / 1e6:6.0f} MB")
    if args.json:
        print(
            json.dumps({"benchmark": "round", "threads": args.threads, "torch": torch.__version__, "results": results})
        )


if __name__ == "__main__":
    main()
