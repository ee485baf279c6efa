"""How fast answers are written, beside transformers' own generate on the same model and batch, in one run.

    python benchmarks/generate.py [--json] [--model FOLDER] [--dtype float32 bfloat16] [--rows N] [--tokens N]

The model is a folder's, or has OPT-125M's shape with random weights; a batch of prompts of 8 to 32 random tokens, each
answered by as many greedy tokens. All variants run in turn, `repeats` times, and each figure is the median.

    transformers   model.generate(do_sample=False)
    ours           hpcfed/model/decode.py
    both sides     hpcfed/probe/decode.py: at w + mu z and at w - mu z, so twice as many answers
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

if not __package__:  # a script, which finds its folder's modules but not benchmarks.reference
    sys.path.insert(0, str(Path(__file__).parents[1]))
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as hpcfed sets it, for all variants alike; before torch

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.reference import MU, make_inputs
from benchmarks.round import opt_125m, use_threads
from hpcfed.config import ModelConfig
from hpcfed.model import load_model
from hpcfed.model.decode import make_generate
from hpcfed.model.head import Inputs, make_forward
from hpcfed.probe.decode import decode_sides
from hpcfed.probe.trial import bound_probe
from hpcfed.transport.device import keep_freed_memory
from hpcfed.transport.row import Row
from hpcfed.weights import Weights

Answers = list[list[int]]
Runs = dict[str, Callable[[], Answers]]
NO_STOP: frozenset[int] = frozenset()


def make_prompts(rows: int, words: int) -> Inputs:
    """Of 8 to 32 tokens, padded on the left."""
    inputs = make_inputs([8 + 24 * i // max(1, rows - 1) for i in range(rows)], words)
    return inputs | {"position_ids": (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)}


def variants(model: nn.Module, inputs: Inputs, tokens: int) -> Runs:
    """What is timed, by name; each gives the answers that it wrote."""
    probe = bound_probe(inputs, model, make_forward(model, Row()), Weights(model), "gaussian")
    generate, known = make_generate(model, Row()), {k: v for k, v in inputs.items() if k != "position_ids"}

    @torch.inference_mode()
    def own() -> Answers:
        written: Tensor = model.generate(  # type: ignore[operator]
            **known, max_new_tokens=tokens, eos_token_id=None, do_sample=False, num_beams=1, use_cache=True
        )
        answers: Answers = written[:, inputs["input_ids"].shape[1] :].tolist()
        return answers

    def sides() -> Answers:
        plus, minus = decode_sides(probe, inputs, 3, MU, tokens, NO_STOP)
        return plus + minus

    return {"transformers": own, "ours": lambda: generate(inputs, tokens, NO_STOP), "both sides": sides}


def timed(runs: Runs, repeats: int) -> dict[str, dict[str, float]]:
    """Median seconds of each variant, tokens a second, and these as a ratio to transformers'.

    Variants alternate so that a slow moment of the machine hits all.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    written: dict[str, int] = {}
    for repeat in range(-1, repeats):  # -1 warms up
        for name, run in runs.items():
            began = time.perf_counter()
            written[name] = sum(map(len, run()))
            if repeat >= 0:
                seconds[name].append(time.perf_counter() - began)
    medians = {name: float(np.median(s)) for name, s in seconds.items()}
    rates = {name: written[name] / medians[name] for name in runs}
    return {
        name: {"seconds": medians[name], "rate": rates[name], "ratio": rates[name] / rates["transformers"]}
        for name in runs
    }


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    parser.add_argument("--model", metavar="FOLDER", help="of a causal model; default: OPT-125M's shape")
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--rows", type=int, default=8, help="prompts of the batch")
    parser.add_argument("--tokens", type=int, default=50, help="of an answer")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args(argv)


def report(row: dict[str, Any]) -> str:
    """One line for people."""
    rate = f"{row['rate']:8.1f} tokens/s  {row['ratio']:5.2f} x transformers"
    return f"{row['dtype']:9} {row['variant']:13}{row['seconds']:8.3f} s {rate}"


def main() -> None:
    chosen = arguments(sys.argv[1:])
    keep_freed_memory()
    use_threads(chosen.threads)
    results = []
    for dtype in chosen.dtype:
        if chosen.model:
            model = load_model(ModelConfig(name=chosen.model, dtype=dtype), "causal-lm")
        else:
            model = opt_125m(getattr(torch, dtype), 12)
        inputs = make_prompts(chosen.rows, model.get_input_embeddings().weight.shape[0])  # type: ignore[operator]
        for name, row in timed(variants(model, inputs, chosen.tokens), chosen.repeats).items():
            results.append({"dtype": dtype, "variant": name} | row)
            print(report(results[-1]), flush=True)
    if chosen.json:
        about = {"benchmark": "generate", "threads": chosen.threads, "torch": torch.__version__}
        print(json.dumps(about | {"results": results}))


if __name__ == "__main__":
    main()
