"""What rebuilding a model from a pool of seeds costs in one pass, beside a sweep a seed, ours and torch's, in one run.

    python benchmarks/pool_rebuild.py [--json] [--seeds N] [--elements N] [--sweeps N] [--threads 1 2]

w = w_0 - sum_j c_j z(s_j) over a pool of `seeds` (FedKSeed: 1,024 to 4,096). The weights are OPT-125M's shapes, whole
layers of them up to `elements`, random values. All figures are per element and seed, of which every way is linear.
One pass runs all seeds. The two other ways do the same work again for every seed: they run `sweeps` seeds, and their
seconds for the pool are scaled from these.

    one pass        move_(once=True) with all seeds: a tile stays in cache and registers for all of them
    sweep a seed    move_ with one seed at a time; in 16 bit rounded, to nearest, after every one
    torch           the plain way: torch.manual_seed, torch.normal and add_ for every parameter and seed
    draw            fill_ of 32,768 elements again and again on one thread: z alone, into the cache; for a Gaussian this
                    is what no order of the loops saves. A Rademacher pass is below it: it never writes z, only signs
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable

import numpy as np
import torch
from replay import part_of_opt
from torch import Tensor

from hpcfed.noise import fill_, move_, set_threads
from hpcfed.noise.layout import Piece
from hpcfed.weights import Weights

BUDGET = 10.0
BLOCK, BLOCKS = 32_768, 200


def seconds(run: Callable[[], None]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def torch_sweep(params: list[Tensor], seed: int, c: float) -> None:
    torch.manual_seed(seed)
    for p in params:
        p.add_(torch.normal(mean=0.0, std=1.0, size=p.shape, dtype=p.dtype), alpha=-c)


def drawing(distribution: str) -> float:
    """Seconds an element that z alone takes, on one thread."""
    out, piece = torch.empty(BLOCK), Piece.whole("w", BLOCK)
    best = min(seconds(lambda: [fill_(out, s, piece, distribution) for s in range(BLOCKS)]) for _ in range(3))
    return best / (BLOCK * BLOCKS)


def measure(dtype: torch.dtype, distribution: str, n: int, elements: int, sweeps: int) -> dict[str, tuple[int, float]]:
    """Seeds done and seconds of each way."""
    seeds = np.random.default_rng(0).integers(0, 2**64, n, np.uint64)
    c = (1e-5 * np.random.default_rng(1).standard_normal(n)).astype(np.float32)
    weights = Weights(part_of_opt(dtype, elements))
    params = [(p.data, weights.pieces[name]) for name, p in weights.params.items()]
    plain = [w for w, _ in params]

    def move(first: int, last: int, once: bool) -> None:
        for w, piece in params:
            move_([(w, piece)], seeds[first:last], c[first:last], distribution, "nearest", once=once)

    move(0, 1, True)  # memory touched, kernels and threads started
    found = {
        "one pass": (n, seconds(lambda: move(0, n, True))),
        "sweep a seed": (sweeps, seconds(lambda: [move(i, i + 1, False) for i in range(sweeps)])),
    }
    few = max(2, sweeps // 4)
    found["torch"] = few, seconds(lambda: [torch_sweep(plain, i, float(c[i])) for i in range(few)])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seeds", type=int, default=1024, help="of the pool")
    parser.add_argument("--elements", type=int, default=21_263_616, help="three layers of OPT-125M by default")
    parser.add_argument("--sweeps", type=int, default=32, help="seeds of the ways that sweep; torch does a quarter")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    args = parser.parse_args()
    results = []
    for threads in args.threads:
        torch.set_num_threads(threads)
        set_threads(threads)
        for dtype in ("float32", "bfloat16"):
            for distribution in ("gaussian", "rademacher"):
                found = measure(getattr(torch, dtype), distribution, args.seeds, args.elements, args.sweeps)
                each = {way: s / (n * args.elements) for way, (n, s) in found.items()}
                draw = drawing(distribution)
                for way, (n, s) in found.items():
                    ratio, whole = each[way] / each["one pass"], each[way] * args.elements * args.seeds
                    results.append(
                        {"threads": threads, "dtype": dtype, "distribution": distribution, "way": way}
                        | {"seeds": n, "seconds": s, "elements": args.elements, "scaled_seconds_pool": whole}
                        | {"ns_per_element_seed": 1e9 * each[way], "over_one_pass": ratio, "draw_ns": 1e9 * draw}
                    )
                    print(
                        f"{threads} threads  {dtype:9} {distribution:10} {way:13} {n:5} seeds {s:6.2f} s  "
                        f"{1e9 * each[way]:6.3f} ns an element and seed  {ratio:6.2f} x one pass  "
                        f"(the pool: {whole:7.1f} s; draw alone, one thread: {1e9 * draw:.3f} ns)",
                        flush=True,
                    )
    load = os.getloadavg()[0]
    print(f"budget: a sweep a seed >= {BUDGET:g} x one pass; {args.seeds} seeds; load {load:.1f} at the end")
    if args.json:
        print(json.dumps({"benchmark": "pool_rebuild", "budget": BUDGET, "load": load, "results": results}))


if __name__ == "__main__":
    main()
