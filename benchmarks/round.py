"""What a round costs beside two plain forward passes and beside the in-place MeZO step, in one run.

    python benchmarks/round.py [--json] [--dtype float32 bfloat16] [--shape 16x32 4x16 sst2] [--repeats N] [--threads N]
    python benchmarks/round.py --block 20 22 24     the round with linear layers in blocks of 2^20, ... elements

The model has OPT-125M's shape with random weights; a batch of B sequences of T tokens, or 16 of SST-2's lengths; the
loss is the language-model loss over the whole vocabulary, so nothing is spared by scoring a few words only. All
variants run in turn, `repeats` times (in-place, the longest, every other time), and each figure is the median.

    forwards   two plain forward passes: what a two-point probe cannot do without
    round      ours: dual forward (directions drawn once), then the update
    in-place   MeZO as published: w += mu z, forward, w -= 2 mu z, forward, w += mu z, w -= lr z; four torch.normal

The parts of a round are those of the probe's clock (hpcfed/clock.py), medians over the same repeats: forwards,
directions, update. Peak memory is what a process of its own needs above the loaded model (Linux).
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from hpcfed.clock import Clock

if not __package__:  # a script, which finds its folder's modules but not benchmarks.reference
    sys.path.insert(0, str(Path(__file__).parents[1]))
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as hpcfed sets it, for all variants alike; before torch

import numpy as np
import torch
from torch import Tensor, nn
from transformers import OPTConfig, OPTForCausalLM

from benchmarks.reference import LR, MU, SST2, in_place, make_inputs, two_forwards
from hpcfed.clock import DIRECTIONS, FORWARD, UPDATE
from hpcfed.messages import Update
from hpcfed.noise import set_threads
from hpcfed.probe import draws
from hpcfed.probe.slopes import from_logits, slopes_of
from hpcfed.probe.trial import bound_probe
from hpcfed.tasks import Batch
from hpcfed.transport.device import keep_freed_memory
from hpcfed.weights import Weights, apply_

PARTS = {"forwards": FORWARD, "directions": DIRECTIONS, "update": UPDATE}
Runs = dict[str, Callable[[int], None]]


def opt_125m(dtype: torch.dtype, layers: int) -> nn.Module:
    """OPT-125M's shape, random weights."""
    torch.manual_seed(0)
    config = OPTConfig(num_hidden_layers=layers, use_cache=False, dropout=0.0)
    assert (config.hidden_size, config.vocab_size) == (768, 50272)
    return OPTForCausalLM(config).to(dtype).eval().requires_grad_(False)


def make_batch(shape: str, words: int = 50_000) -> Batch:
    """shape: "BxT", B sequences of T tokens; or "sst2", 16 of the lengths of SST-2's."""
    size, _, length = shape.partition("x")
    inputs = make_inputs(SST2 if shape == "sst2" else [int(length)] * int(size), words)
    return Batch(inputs, torch.zeros(len(inputs["input_ids"]), dtype=torch.int64)).without_padding()


def losses(logits: Tensor, batch: Batch) -> Tensor:
    """Mean language-model loss of each sequence, float32 [B]."""
    ids, seen = batch.inputs["input_ids"], batch.inputs["attention_mask"][:, :-1]
    flat = nn.functional.cross_entropy(logits[:, :-1].float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    return (flat.view(len(ids), -1) * seen).sum(1) / seen.sum(1)


def mean_loss(model: nn.Module, batch: Batch) -> float:
    """One forward pass."""
    return losses(model(**batch.inputs).logits, batch).mean().item()


class Ours:
    """A FeedSign round of one client without a network.  block: elements of a linear layer perturbed at a time."""

    def __init__(self, model: nn.Module, batch: Batch, distribution: str, block: int = draws.BLOCK["cpu"]) -> None:
        self.weights, self.batch, self.distribution, self.block = Weights(model), batch, distribution, block
        self.rounding = "nearest" if next(model.parameters()).dtype == torch.float32 else "stochastic"
        self.clock, forward = Clock(), lambda inputs: model(**inputs).logits
        self.probe = bound_probe(batch.inputs, model, forward, self.weights, distribution, clock=self.clock)

    def __call__(self, seed: int) -> None:
        draws.BLOCK["cpu"] = self.block
        slot = np.zeros(len(self.batch.label), np.int64)
        with self.clock.round():
            p, _ = slopes_of(self.probe, from_logits(losses), [(self.batch, slot)], 1, [seed], MU)
            with self.clock.during(UPDATE):
                update = Update(np.array([seed], np.uint64), np.sign(p[0]).astype(np.float32), LR)
                apply_(self.weights, [update], self.distribution, self.rounding)

    def parts(self, rounds: int) -> dict[str, float]:
        """Median seconds of each part of the last `rounds` rounds."""
        medians = np.median(self.clock.take()[-rounds:], axis=0)
        return {name: float(medians[part]) for name, part in PARTS.items()}


def variants(model: nn.Module, batch: Batch, blocks: list[int]) -> Runs:
    """What is timed, by name, each a function of the seed.  blocks: log2 of sizes; none: all that we compare with."""
    loss = partial(mean_loss, model, batch)
    runs: Runs = {"forwards": lambda _: two_forwards(loss)}
    if blocks:
        return runs | {f"round, block 2^{n}": Ours(model, batch, "gaussian", 2**n) for n in blocks}
    runs |= {"round": Ours(model, batch, "gaussian"), "round, rademacher": Ours(model, batch, "rademacher")}
    return runs | {"in-place": lambda seed: in_place(model, loss, seed)}


def timed(runs: Runs, repeats: int) -> dict[str, dict[str, Any]]:
    """Median seconds of each variant; variants alternate so that a slow moment of the machine hits all."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(-1, repeats):  # -1 warms up: compiles kernels
        for name, run in runs.items():
            if name == "in-place" and repeat % 2:
                continue
            began = time.perf_counter()
            run(repeat + 2)
            if repeat >= 0:
                seconds[name].append(time.perf_counter() - began)
    table: dict[str, dict[str, Any]] = {name: {"seconds": float(np.median(s))} for name, s in seconds.items()}
    for name, run in runs.items():
        table[name]["ratio"] = table[name]["seconds"] / table["forwards"]["seconds"]
        if isinstance(run, Ours):
            table[name]["parts"] = run.parts(repeats)
    return table


def peak(run: Callable[[int], None], warm: Callable[[int], None], threads: int) -> int:
    """Bytes that a process of its own needs at most for `run`, beyond what it held after `warm`, the same in small.

    The process is a fork of this one, which has everything imported and must not have started any threads yet.
    """
    read, write = os.pipe()
    if not (child := os.fork()):
        try:
            keep_freed_memory()  # as a run does, for all variants alike
            use_threads(threads)
            warm(1)  # libraries, compiled kernels
            ctypes.CDLL(None).malloc_trim(0)  # else what loading freed would be used again, and not be counted
            Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
            before = resident("VmRSS")
            for seed in range(2 if isinstance(run, Ours) else 1):  # the first of ours binds the probe
                run(seed)
            os.write(write, str(resident("VmHWM") - before).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    assert text, "the process whose memory was to be measured died"
    return int(text)


def resident(field: str) -> int:
    """VmRSS (now) or VmHWM (peak) of this process in bytes."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(field))
    return 1024 * int(line.split()[1])


def use_threads(threads: int) -> None:
    torch.set_num_threads(threads)
    set_threads(threads)


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--shape", nargs="+", default=["16x32", "4x16"], metavar="BxT", help="or sst2")
    parser.add_argument("--block", nargs="+", type=int, default=[], metavar="N", help="log2 of block sizes to compare")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args(argv)


def report(row: dict[str, Any]) -> str:
    """One line for people."""
    parts = "  ".join(f"{name} {s:.3f}" for name, s in row.get("parts", {}).items())
    line = f"{row['dtype']:9}{row['shape']:>6}  {row['variant']:18}{row['seconds']:8.3f} s"
    return f"{line}  {row['ratio']:5.2f} x forwards  +{row['peak_bytes'] / 1e6:6.0f} MB  {parts}".rstrip()


def main() -> None:
    chosen = arguments(sys.argv[1:])
    use_threads(1)  # until all forks are done
    models = {dtype: opt_125m(getattr(torch, dtype), chosen.layers) for dtype in chosen.dtype}
    peaks = {}
    for dtype, model in models.items():
        small = variants(opt_125m(getattr(torch, dtype), 1), make_batch("2x2"), chosen.block)
        for shape in chosen.shape:
            for name, run in variants(model, make_batch(shape), chosen.block).items():
                peaks[dtype, shape, name] = peak(run, small[name], chosen.threads)
    keep_freed_memory()
    use_threads(chosen.threads)
    results = []
    for dtype, model in models.items():
        for shape in chosen.shape:
            for name, row in timed(variants(model, make_batch(shape), chosen.block), chosen.repeats).items():
                where = {"dtype": dtype, "shape": shape, "variant": name}
                results.append(where | row | {"peak_bytes": peaks[dtype, shape, name]})
                print(report(results[-1]), flush=True)
    if chosen.json:
        about = {"benchmark": "round", "threads": chosen.threads, "torch": torch.__version__}
        print(json.dumps(about | {"results": results}))


if __name__ == "__main__":
    main()
