"""How fast directions are drawn and applied, in elements a second, beside torch.randn and torch's in-place add.

    OMP_NUM_THREADS=2 python benchmarks/noise.py [--threads N] [--elements N] [--seconds S] [--json]

Every figure is the best of as many repetitions as fit --seconds, so that other users of the machine disturb it little
(where cores are shared, keep a call shorter than the scheduler's time slice, a few milliseconds). All are measured in
one run, since only their ratios mean anything. "x randn" compares with torch.randn in float32 on as many threads.
--json prints one JSON object on the last line.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from hpcfed.noise import engine
from hpcfed.noise.layout import Piece

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SEED = 0x1234_5678_9ABC_DEF0
MANY = 64  # rounds of a replay


def best(work: Callable[[], object], seconds: float) -> float:
    """The least time of one call, in seconds."""
    work()
    least, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        work()
        least = min(least, time.perf_counter() - start)
    return least


def cases(n: int) -> dict[str, tuple[Callable[[], object], int]]:
    """Name -> (a call, how many elements it draws or touches)."""
    piece = Piece.whole("benchmark", n)
    out = torch.empty(n)
    table: dict[str, tuple[Callable[[], object], int]] = {
        "torch.randn": (partial(torch.randn, n, out=out), n),
        "torch add_": (partial(out.add_, out, alpha=0.5), n),
    }
    seeds, steps = np.arange(MANY, dtype=np.uint64) + np.uint64(SEED), np.full(MANY, 1e-6, np.float32)
    few = Piece.whole("benchmark", n // MANY)  # so that many rounds of it take as long as the other cases
    for distribution in engine.DISTRIBUTIONS:
        for name, dtype in DTYPES.items():
            w, plus, minus = (torch.ones(n).to(dtype) for _ in range(3))
            table |= {
                f"{distribution} fill {name}": (partial(engine.fill_, plus, SEED, piece, distribution), n),
                f"{distribution} perturb {name}": (
                    partial(engine.perturb, w, plus, minus, SEED, 1e-3, piece, distribution),
                    n,
                ),
                f"{distribution} move {name}": (
                    partial(engine.move_, [(w, piece)], seeds[:1], steps[:1], distribution, "stochastic"),
                    n,
                ),
                f"{distribution} move {name}, {MANY} rounds": (
                    partial(engine.move_, [(w[: few.numel], few)], seeds, steps, distribution, "stochastic"),
                    few.numel * MANY,
                ),
            }
    for name, dtype in DTYPES.items():
        table[f"fingerprint {name}"] = (partial(engine.fingerprint, torch.ones(n).to(dtype), piece), n)
    return table


def call_cost(seconds: float) -> dict[str, float]:
    """Microseconds of one call on a tiny tensor: what a model of many small parameters pays."""
    piece, w = Piece.whole("tiny", 64), torch.ones(64)
    plus, minus = torch.empty(64), torch.empty(64)
    seeds, steps = np.array([SEED], np.uint64), np.array([1e-6], np.float32)
    calls: dict[str, Callable[[], object]] = {
        "perturb": partial(engine.perturb, w, plus, minus, SEED, 1e-3, piece, "gaussian"),
        "move": partial(engine.move_, [(w, piece)], seeds, steps, "gaussian", "nearest"),
        "fingerprint": partial(engine.fingerprint, w, piece),
    }

    def repeat(call: Callable[[], object]) -> None:
        for _ in range(100):
            call()

    return {name: best(partial(repeat, call), seconds) * 1e4 for name, call in calls.items()}


def main() -> None:
    """Measure, print a table and, if asked, one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="measured beside one thread")
    parser.add_argument("--elements", type=int, default=1 << 20, help="size of the tensor (default 1 Mi)")
    parser.add_argument("--seconds", type=float, default=0.4, help="time slice of each figure")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    options = parser.parse_args()
    columns = sorted({1, options.threads})
    speed: dict[str, dict[int, float]] = {}
    for threads in columns:
        torch.set_num_threads(threads)
        for name, (work, touched) in cases(options.elements).items():
            speed.setdefault(name, {})[threads] = touched / best(work, options.seconds)
    print(f"{'M elements/s':36}" + "".join(f"{f'{t} thread' + 's' * (t > 1):>12}{'x randn':>9}" for t in columns))
    for name, row in speed.items():
        cells = (f"{row[t] / 1e6:12.0f}{row[t] / speed['torch.randn'][t]:9.2f}" for t in columns)
        print(f"{name:36}" + "".join(cells))
    small = call_cost(options.seconds)
    print("one call on 64 elements: " + ", ".join(f"{name} {us:.1f} us" for name, us in small.items()))
    if options.json:
        rows = {name: {str(t): rate for t, rate in row.items()} for name, row in speed.items()}
        ratios = {d: speed[f"{d} fill fp32"][1] / speed["torch.randn"][1] for d in engine.DISTRIBUTIONS}
        result = {"elements": options.elements, "elements_per_second": rows, "x_randn_per_core": ratios}
        print(json.dumps(result | {"call_microseconds": small}))


if __name__ == "__main__":
    main()
