"""What a rank's memory peaks at while it loads its part of a model, and what a probe costs beside two forward passes.

    torchrun --standalone --nproc-per-node 2 benchmarks/shards.py FOLDER [--json]

All ranks form one row. FOLDER gets a random OPT of --layers layers of width --width if it has no model yet. Peak: what
the resident memory rises by at most, pages of the checkpoint's files included, beside the bytes of the rank's weights.
Times are medians over alternating repeats on 8 sequences of 32 tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import torch

from hpcfed.config import ModelConfig
from hpcfed.model import load_shard
from hpcfed.probe.trial import bound_probe
from hpcfed.transport.choose import choose, spread
from hpcfed.transport.guard import guard
from hpcfed.transport.launch import discover
from hpcfed.weights import Weights


def write_model(folder: Path, width: int, layers: int) -> None:
    from transformers import OPTConfig, OPTForCausalLM

    config = OPTConfig(
        hidden_size=width, word_embed_proj_dim=width, ffn_dim=4 * width, num_hidden_layers=layers, vocab_size=8000,
        num_attention_heads=width // 64, max_position_embeddings=256,
    )  # fmt: skip
    torch.manual_seed(0)
    OPTForCausalLM(config).save_pretrained(folder, max_shard_size="200MB")


def memory(name: str) -> int:
    """VmRSS or VmHWM of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    launch = discover()
    with guard(launch):
        transport = choose(launch)
    with guard(transport):
        if transport.rank == 0 and not (args.folder / "config.json").is_file():
            write_model(args.folder, args.width, args.layers)
        transport = spread(transport, launch, launch.size)
        row = transport.row
        transport.barrier()
        from transformers.models.opt import modeling_opt  # noqa: F401  its import is not the model's memory

        if row.shards > 1:
            import deepspeed.inference.engine  # noqa: F401
        config = ModelConfig(name=str(args.folder), dtype=args.dtype)
        before = memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
        began = time.perf_counter()
        model, slices = load_shard(config, "causal-lm", [], row)
        seconds, peak = time.perf_counter() - began, memory("VmHWM") - before
        held = sum(p.nbytes for p in model.parameters())
        inputs = {"input_ids": torch.randint(5, 8000, (8, 32), generator=torch.Generator().manual_seed(1))}
        times: dict[str, list[float]] = {"two forwards": [], "probe": []}
        weights = Weights(model, (), slices, row)
        probe = bound_probe(inputs, model, lambda x: model(**x).logits[:, -1, :8], weights, "gaussian")
        probe.logits(inputs, 0, 1e-3)
        for i in range(args.repeats):
            with torch.inference_mode():
                began = time.perf_counter()
                model(**inputs), model(**inputs)
                times["two forwards"].append(time.perf_counter() - began)
            began = time.perf_counter()
            probe.logits(inputs, i, 1e-3)
            times["probe"].append(time.perf_counter() - began)
        found = {
            "benchmark": "shards", "shards": row.shards, "dtype": args.dtype, "weights_bytes": held,
            "peak_bytes": peak, "peak_ratio": peak / held, "load_s": seconds, "mode": probe.mode,
        } | {name: float(np.median(t)) for name, t in times.items()}  # fmt: skip
        everyone = [json.loads(raw) for raw in transport.everyone(json.dumps(found).encode())]
        if transport.rank == 0:
            for rank, f in enumerate(everyone):
                held, peak = (f[key] / 2**20 for key in ("weights_bytes", "peak_bytes"))
                print(
                    f"rank {rank}: weights {held:.0f} MiB, peak {peak:.0f} MiB ({f['peak_ratio']:.2f} x), "
                    f"loaded in {f['load_s']:.1f} s; probe ({f['mode']}) {f['probe']:.3f} s, "
                    f"two forwards {f['two forwards']:.3f} s ({f['probe'] / f['two forwards']:.2f} x)"
                )
            if args.json:
                print(json.dumps(everyone))
    transport.close()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
