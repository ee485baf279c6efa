"""What a round costs on a GPU, beside two plain forward passes and the in-place MeZO step, in one run.

    python benchmarks/gpu_round.py [--model opt-13b ...] [--dtype bfloat16 float16] [--tokens sst2 256] [--json]

Models have the true OPT shapes and random weights, made on the device from the configuration alone. A batch is 16
sequences, padded on the left: "sst2" has the lengths of SST-2's sentences, a number is a length for all. The loss is
that of two words at the last position, whose logits alone are computed.

    forwards   two plain forward passes: what a two-point probe cannot do without
    round      ours: dual forward with directions drawn once, the vote, the update; gaussian and rademacher
    graphed    the gaussian round with the dual forward as a CUDA graph (mesh.graphs); left out where the probe makes
               none, as for batches without padding (hpcfed/probe/graphs.py), and said why if it failed
    in-place   MeZO as published: w += mu z, forward, w -= 2 mu z, forward, w += mu z, w -= lr z; four torch.normal

Milliseconds are medians of CUDA events around a whole variant. The parts of a round come from repetitions of their own,
with events around every draw: forwards (the probe without its draws), directions, vote (from the probe's last kernel
to the update's first: losses to the host, slope, sign; one row, so no network) and update; the graphed round's are not
measured. Peak memory is what torch allocated beyond the weights; of the graphed round in its first runs, too, since
what capturing took stays reserved.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import OPTConfig, OPTForCausalLM

if not __package__:  # a script, which finds its folder's modules but not benchmarks.reference
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.reference import LR, MU, SST2, in_place, make_inputs, two_forwards
from hpcfed.clock import Clock
from hpcfed.messages import Update
from hpcfed.model.head import restrict_head
from hpcfed.probe import Probe
from hpcfed.probe.draws import Draws
from hpcfed.probe.slopes import from_logits, slopes_of
from hpcfed.probe.trial import bind
from hpcfed.tasks import Batch
from hpcfed.weights import Weights, apply_

#: Width, layers, heads, parameters (the output embedding is tied). The feed-forward layers are four times as wide.
SHAPES = {
    "opt-125m": (768, 12, 12, 125_239_296),
    "opt-1.3b": (2048, 24, 32, 1_315_758_080),
    "opt-6.7b": (4096, 32, 32, 6_658_473_984),
    "opt-13b": (5120, 40, 40, 12_853_473_280),
}
WORDS = (7411, 6587)  # two rows of the output embedding


def make_model(name: str, dtype: torch.dtype, device: str) -> nn.Module:
    """OPT of a true shape with random weights, scoring two words only; its parameters are counted."""
    width, layers, heads, numel = SHAPES[name]
    config = OPTConfig(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, ffn_dim=4 * width,
        word_embed_proj_dim=width, use_cache=False, dropout=0.0, attn_implementation="sdpa",
    )  # fmt: skip
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # else a 13B model would be made in float32 first: 51 GB
    try:
        with torch.device(device):
            model = OPTForCausalLM(config).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(before)
    found = sum(p.numel() for p in model.parameters())
    assert found == numel, f"{name} has {found:,} parameters, not {numel:,}"
    assert restrict_head(model, WORDS)
    return model


def make_batch(tokens: str, device: str) -> Batch:
    """16 sequences, padded on the left; labels in {0, 1}."""
    inputs = make_inputs(SST2 if tokens == "sst2" else [int(tokens)] * 16)
    return Batch(inputs, torch.arange(16) % 2).without_padding().to(device)


def losses(logits: Tensor, batch: Batch) -> Tensor:
    """float32 [16]: cross-entropy of the two words at the last position; logits [16, 1, 2]."""
    return nn.functional.cross_entropy(logits[:, -1].float(), batch.label, reduction="none")


class Spans:
    """Pairs of CUDA events by name; only while `on`."""

    def __init__(self) -> None:
        self.on, self.pairs = False, dict[str, list[tuple[Any, Any]]]()

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        if not self.on:
            yield
            return
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        yield
        last.record()
        self.pairs.setdefault(name, []).append((first, last))

    def take(self) -> dict[str, float]:
        """Milliseconds a name since the last call."""
        torch.cuda.synchronize()
        sums = {name: sum(a.elapsed_time(b) for a, b in pairs) for name, pairs in self.pairs.items()}
        self.pairs.clear()
        return sums


class TimedProbe(Probe):
    """A Probe with events around the whole."""

    spans: Spans

    def logits(self, *args: Any) -> tuple[Tensor, Tensor]:
        with self.spans("probe"):
            return super().logits(*args)


class TimedDraws(Draws):
    """Draws with events around each."""

    spans: Spans

    def perturbed(self, *args: Any) -> list[Tensor]:
        with self.spans("directions"):
            return super().perturbed(*args)


class Round:
    """A FeedSign round of one client."""

    def __init__(self, model: nn.Module, batch: Batch, distribution: str, graphs: bool = False) -> None:
        self.weights, self.batch, self.distribution, self.spans = Weights(model), batch, distribution, Spans()
        draws = TimedDraws(distribution, Clock())
        self.probe = TimedProbe(model, partial(forward, model), self.weights, distribution, graphs, draws=draws)
        self.probe.spans = draws.spans = self.spans
        bind(self.probe, batch.inputs)

    def __call__(self, seed: int) -> None:
        with self.spans("before update"):
            slot = np.zeros(len(self.batch.label), np.int64)
            p, _ = slopes_of(self.probe, from_logits(losses), [(self.batch, slot)], 1, [seed], MU)
            update = Update(np.array([seed], np.uint64), np.sign(p[0]).astype(np.float32), LR)
        with self.spans("update"):
            apply_(self.weights, [update], self.distribution, "stochastic")

    def parts(self, seed: int) -> dict[str, float]:
        """Milliseconds of the parts of one round."""
        self.spans.on = True
        self(seed)
        self.spans.on = False
        ms = self.spans.take()
        return {
            "forwards": ms["probe"] - ms["directions"],
            "directions": ms["directions"],
            "vote": ms["before update"] - ms["probe"],
            "update": ms["update"],
        }


def forward(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    logits: Tensor = model(**inputs, logits_to_keep=1).logits
    return logits


def mean_loss(model: nn.Module, batch: Batch) -> float:
    """One forward pass, waited for."""
    return losses(forward(model, batch.inputs), batch).mean().item()


def measured(run: Callable[[int], None], repeats: int, from_first: bool = False) -> dict[str, float]:
    """Median milliseconds, and the most bytes allocated; from_first: also in the runs that are not timed."""
    torch.cuda.reset_peak_memory_stats()
    for seed in range(3):  # compiles kernels, binds the probe, captures a graph
        run(seed)
    torch.cuda.synchronize()
    if not from_first:
        torch.cuda.reset_peak_memory_stats()
    ms = []
    for seed in range(3, 3 + repeats):
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        run(seed)
        last.record()
        torch.cuda.synchronize()
        ms.append(first.elapsed_time(last))
    return {"ms": statistics.median(ms), "peak": torch.cuda.max_memory_allocated()}


def measure(model: nn.Module, batch: Batch, repeats: int) -> dict[str, dict[str, Any]]:
    """Every variant on one model, each alone on the device."""
    held, loss = torch.cuda.memory_allocated(), partial(mean_loss, model, batch)
    table: dict[str, dict[str, Any]] = {"forwards": measured(lambda _: two_forwards(loss), repeats)}
    for distribution in ("gaussian", "rademacher"):
        ours = Round(model, batch, distribution)
        table[f"round, {distribution}"] = row = measured(ours, repeats)
        parts = [ours.parts(seed) for seed in range(100, 100 + repeats)]
        row["parts"] = {name: statistics.median(p[name] for p in parts) for name in parts[0]}
        del ours
    graphed = Round(model, batch, "gaussian", graphs=True)
    row = measured(graphed, repeats, from_first=True)
    assert graphed.probe.graphs is not None
    if graphed.probe.graphs.count:
        table["round, graphed"] = row
    for note in graphed.probe.graphs.notes:
        print(note, flush=True)
    del graphed
    gc.collect()  # a graphed probe refers to itself
    table["in-place"] = measured(lambda seed: in_place(model, loss, seed), repeats)
    for row in table.values():
        row["peak_bytes"] = row.pop("peak") - held
        row["x forwards"] = row["ms"] / table["forwards"]["ms"]
    return table


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--dtype", nargs="+", choices=["bfloat16", "float16"], default=["bfloat16", "float16"])
    parser.add_argument("--tokens", nargs="+", default=["sst2", "256"], metavar="N")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    chosen = parser.parse_args(argv)
    for tokens in chosen.tokens:
        if tokens != "sst2" and not (tokens.isdigit() and 0 < int(tokens) <= 2048):
            parser.error(f"--tokens {tokens}: sst2, or a length from 1 to 2048")
    return chosen


def main() -> None:
    chosen = arguments(sys.argv[1:])
    if not torch.cuda.is_available():
        sys.exit("gpu_round.py: torch sees no GPU here, so nothing can be measured; benchmarks/round.py is for CPUs")
    results = []
    for name in chosen.model:
        for dtype in chosen.dtype:
            model = make_model(name, getattr(torch, dtype), "cuda")
            for tokens in chosen.tokens:
                table = measure(model, make_batch(tokens, "cuda"), chosen.repeats)
                for variant, row in table.items():
                    results.append({"model": name, "dtype": dtype, "tokens": tokens, "variant": variant, **row})
                    parts = "  ".join(f"{k} {v:.1f}" for k, v in row.get("parts", {}).items())
                    line = f"{name:9}{dtype:9}{tokens:>5}  {variant:18}{row['ms']:9.1f} ms"
                    line += f" {row['x forwards']:6.2f} x forwards  +{row['peak_bytes'] / 1e6:7.0f} MB  {parts}"
                    print(line, flush=True)
            del model
            torch.cuda.empty_cache()
    if chosen.json:
        device = torch.cuda.get_device_name()
        print(json.dumps({"benchmark": "gpu_round", "device": device, "torch": torch.__version__, "results": results}))


if __name__ == "__main__":
    main()
