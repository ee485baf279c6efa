"""What replaying an orbit in one pass over the weights saves, beside round by round, ours and torch's, in one run.

    python benchmarks/replay.py [--json] [--rounds N] [--elements N] [--seconds S] [--threads N]

The weights are part of OPT-125M's: whole layers of its shapes, as many as fit `elements`, random values. Replay visits
every element in every round and every way of it is linear in both, so all figures are per element and round; the last
column is the time that 10,000 rounds of all 125 million parameters would take, and is scaled, not measured. One pass
runs all `rounds`; the others stop after `seconds`, and the rounds they got through are given.

    one pass          ours: apply_ with all updates: an element stays in cache and registers for all rounds
    round by round    ours: apply_ with one update at a time, the same bits (checked by fingerprint)
    torch             the plain way: torch.manual_seed, torch.normal and add_ for every parameter and round

In 16 bit ours round stochastically, which costs a second random draw; torch's add_ rounds to nearest and would lose
most updates, so it is a reference for time only.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from itertools import count

import numpy as np
import torch
from torch import Tensor, nn

from hpcfed.messages import Update
from hpcfed.noise import set_threads
from hpcfed.weights import Weights, apply_

OPT_125M = 125_239_296
LR = np.float32(1e-4)
BUDGET = 10.0


def part_of_opt(dtype: torch.dtype, elements: int) -> nn.Module:
    """Parameters of OPT-125M's shapes: attention, MLP and norms of a layer, again and again up to `elements`."""
    generator = torch.Generator().manual_seed(0)
    layer = [(768, 768), (768,)] * 4 + [(3072, 768), (3072,), (768, 3072), (768,)] + [(768,)] * 4
    model, left = nn.ParameterList(), elements
    while left > 0:
        for shape in layer:
            rows = min(shape[0], max(1, left * shape[0] // int(np.prod(shape))))
            values = 0.02 * torch.randn(rows, *shape[1:], generator=generator)
            model.append(nn.Parameter(values.to(dtype), requires_grad=False))
            left -= values.numel()
            if left <= 0:
                break
    return model


def updates() -> Iterator[Update]:
    """FeedSign's: one direction a round, a step of +lr or -lr."""
    for t in count():
        seed = np.array([t * 0x9E3779B97F4A7C15 % 2**64], np.uint64)
        yield Update(seed, np.array([1 if t % 3 else -1], np.float32), LR)


def torch_round(params: list[Tensor], t: int) -> None:
    torch.manual_seed(t)
    for p in params:
        p.add_(torch.normal(mean=0.0, std=1.0, size=p.shape, dtype=p.dtype), alpha=float(LR if t % 3 else -LR))


def until(seconds: float, most: int, step: Callable[[int], None]) -> tuple[int, float]:
    """Run step(0), step(1), ... for `seconds`, at most `most`: how many, and their seconds."""
    began = time.perf_counter()
    for t in range(most):
        step(t)
        if time.perf_counter() - began > seconds:
            break
    return t + 1, time.perf_counter() - began


def measure(
    dtype: torch.dtype, distribution: str, rounds: int, elements: int, seconds: float
) -> dict[str, tuple[int, float]]:
    """Rounds done and seconds of each way."""
    rounding = "nearest" if dtype == torch.float32 else "stochastic"
    stream = updates()
    todo = [next(stream) for _ in range(rounds)]
    tiny = Weights(part_of_opt(dtype, 1000))
    apply_(tiny, todo[:2], distribution, rounding)  # kernels compiled

    model = part_of_opt(dtype, elements)
    weights = Weights(model)
    found = {"round by round": until(seconds, rounds, lambda t: apply_(weights, [todo[t]], distribution, rounding))}
    params = [p.data for p in part_of_opt(dtype, elements).parameters()]
    found["torch"] = until(seconds, rounds, lambda t: torch_round(params, t))
    whole = Weights(part_of_opt(dtype, elements))
    began = time.perf_counter()
    apply_(whole, todo, distribution, rounding)
    found["one pass"] = rounds, time.perf_counter() - began

    again = Weights(part_of_opt(dtype, elements))
    apply_(again, todo[: found["round by round"][0]], distribution, rounding)
    assert again.fingerprint() == weights.fingerprint(), "one pass and round by round differ"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=200, help="of the one pass")
    parser.add_argument("--elements", type=int, default=7_087_872, help="one layer of OPT-125M by default")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each way that goes round by round")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    set_threads(args.threads)
    results = []
    for dtype in ("float32", "bfloat16"):
        for distribution in ("gaussian", "rademacher"):
            found = measure(getattr(torch, dtype), distribution, args.rounds, args.elements, args.seconds)
            each = {way: s / (n * args.elements) for way, (n, s) in found.items()}
            for way, (n, s) in found.items():
                ratio = each[way] / each["one pass"]
                scaled = each[way] * OPT_125M * 10_000
                results.append(
                    {"dtype": dtype, "distribution": distribution, "way": way, "rounds": n, "seconds": s}
                    | {"elements": args.elements, "ns_per_element_round": 1e9 * each[way], "over_one_pass": ratio}
                    | {"scaled_seconds_10000_rounds_opt_125m": scaled}
                )
                print(
                    f"{dtype:9} {distribution:10} {way:15} {n:5} rounds {s:6.2f} s  {1e9 * each[way]:6.3f} ns an "
                    f"element and round  {ratio:5.2f} x one pass  ({scaled / 3600:5.2f} h for all of OPT-125M)"
                )
    print(f"budget: round by round >= {BUDGET:g} x one pass")
    if args.json:
        print(json.dumps({"benchmark": "replay", "threads": args.threads, "budget": BUDGET, "results": results}))


if __name__ == "__main__":
    main()
