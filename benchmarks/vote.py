"""What a vote costs beside the bare all-reduce of the same bytes, in one run on several ranks.

    torchrun --standalone --nproc-per-node 2 benchmarks/vote.py [--json]
    mpirun -n 2 python benchmarks/vote.py [--json]

A tally of one direction and one client a row: encoding, one collective, checks. The reference is the transport's own
sum of 3 int8 numbers. Both alternate; figures are medians in microseconds.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np

from hpcfed.messages import Ballots
from hpcfed.transport.choose import choose
from hpcfed.transport.guard import guard
from hpcfed.transport.launch import discover


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--repeats", type=int, default=2000)
    args = parser.parse_args()
    launch = discover()
    with guard(launch):
        transport = choose(launch)
    with guard(transport):
        hosted = [1] * transport.rows
        ballots = Ballots([transport.row.index], np.ones((1, 1), np.int8))
        bare = np.ones(3, np.int8)
        kinds = {
            "all-reduce": lambda: transport.sum_in_place(bare),
            "tally, sums": lambda: transport.tally(ballots, transport.rows, hosted, "sum"),
            "tally, bits": lambda: transport.tally(ballots, transport.rows, hosted, "bits"),
        }
        seconds: dict[str, list[float]] = {name: [] for name in kinds}
        for _ in range(args.repeats):
            for name, call in kinds.items():
                began = time.perf_counter()
                call()
                seconds[name].append(time.perf_counter() - began)
        results = [
            {
                "variant": name,
                "us": 1e6 * float(np.median(s)),
                "ratio": float(np.median(s) / np.median(seconds["all-reduce"])),
            }
            for name, s in seconds.items()
        ]
        if transport.row.index == 0:
            print(f"{transport.name}, {transport.rows} rows")
            for r in results:
                print(f"  {r['variant']:12} {r['us']:8.1f} us  {r['ratio']:5.2f} x")
            if args.json:
                print(
                    json.dumps(
                        {"benchmark": "vote", "transport": transport.name, "rows": transport.rows, "results": results}
                    )
                )
    transport.close()


if __name__ == "__main__":
    main()
