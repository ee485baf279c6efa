"""What many clients in one process cost in memory and time, beside ten clients, in one run.

    python benchmarks/pool.py [--json] [--clients 10 1000 10000] [--rounds N] [--threads N] [--rows N]

The digits model; its 700 training images repeated until every client has eight, batch four, clients.group 200. Each
number of clients runs in a process of its own. The first one is the reference; its clients hold and evaluate more, so
that all have 800 examples in a forward pass: what differs is the number of clients, not the activations.

    peak            most memory the process ever held
    per client      (peak - data) above the reference's, over the clients it has more; data: the images themselves.
                    A peak varies by 1 or 2 MB from process to process: only the figure of many clients means something.
                    It holds the moment at which the examples are dealt out, some 60 bytes an example
    index list      what the design allows: the numbers of the client's examples, and where they begin
    microseconds    of a round, an evaluated example; a round is train.run_round, without a journal
    start           seconds from the start of the process to the first round
With --rows N, N ranks under torchrun share the clients; the peak is that of the largest rank.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from hpcfed.clients import Pool, partition
from hpcfed.clients.partition import Deal
from hpcfed.config import load_recipe
from hpcfed.noise import set_threads
from hpcfed.tasks import Examples
from hpcfed.train.build import assemble
from hpcfed.train.problem import build_problem
from hpcfed.train.round import State
from hpcfed.transport.choose import choose
from hpcfed.transport.launch import discover
from hpcfed.transport.mesh import MeshShape

TOGETHER, BATCH, HELD = 800, 4, 2  # examples in a forward pass; examples a client and round; batches a client holds
BUDGET = "weights once; nothing per client but its index list"


def age() -> float:
    """Seconds since this process was started."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return float(Path("/proc/uptime").read_text().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")


def measure(clients: int, rounds: int) -> dict[str, float]:
    """Peak bytes and seconds a round of `clients` clients; call it in a fresh process."""
    batch = max(BATCH, TOGETHER // clients)
    group = min(clients, TOGETHER // batch)
    recipe = load_recipe("digits", [f"clients.group={group}", f"clients.batch={batch}", "mesh.threads=0"])
    problem = build_problem(recipe)
    n, real = HELD * batch * clients, problem.task.train
    columns = {name: np.resize(column, (n, *column.shape[1:])) for name, column in real.columns.items()}
    problem.task = replace(problem.task, train=Examples(columns, np.resize(real.labels, n)))
    parts = partition("iid", Deal(problem.task.train.labels, clients))
    pool = Pool(parts, clients, group, batch, recipe.seed)
    transport = choose(discover())
    run = assemble(recipe, transport, MeshShape(transport.rows), problem, pool)
    transport.barrier()
    start, seconds, sent = age(), [], 0
    for t in range(rounds):
        began = time.perf_counter()
        sent = run.round(t, State()).payload_bytes
        seconds.append(time.perf_counter() - began)
    peaks = transport.all_gather(str(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss).encode())
    found = {
        "clients": clients,
        "examples_round": batch * clients,
        "seconds_round": float(np.median(seconds)),
        "peak_bytes": max(int(peak) for peak in peaks),
        "start_seconds": start,
        "payload_bytes": sent,
        "data_bytes": sum(c.nbytes for c in columns.values()) + problem.task.train.labels.nbytes,
        "index_bytes": (parts.flat.nbytes + parts.starts.nbytes) / clients,
    }
    transport.close()
    return found if transport.row.index == 0 else {}


def fresh(clients: int, rounds: int, threads: int, rows: int) -> dict[str, float]:
    ranks = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(rows)] if rows > 1 else []
    line = [sys.executable, *ranks, __file__, "--one", str(clients), "--rounds", str(rounds), "--threads", str(threads)]
    found: dict[str, float] = json.loads(subprocess.run(line, check=True, capture_output=True, text=True).stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--clients", type=int, nargs="+", default=[10, 1000, 10_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    set_threads(args.threads)
    if args.one:
        if found := measure(args.one, args.rounds):
            print(json.dumps(found))
        return
    found: dict[str, float]
    results: list[dict[str, float]] = []
    for clients in args.clients:
        found = fresh(clients, args.rounds, args.threads, args.rows)
        first = results[0] if results else found
        more = found["peak_bytes"] - found["data_bytes"] - first["peak_bytes"] + first["data_bytes"]
        found["bytes_per_client"] = more / max(1, clients - first["clients"])
        found["microseconds_example"] = 1e6 * found["seconds_round"] / found["examples_round"]
        found["time_over_first"] = found["microseconds_example"] / (first.get("microseconds_example") or 1)
        results.append(found)
        print(
            f"{clients:6,} clients  peak {found['peak_bytes'] / 1e6:5.0f} MB (data {found['data_bytes'] / 1e6:4.1f})  "
            f"{found['bytes_per_client']:6.0f} B per client (index list {found['index_bytes']:.0f})  "
            f"{found['seconds_round']:6.3f} s a round  {found['microseconds_example']:6.1f} us an example  "
            f"{found['time_over_first']:5.2f} x first  start {found['start_seconds']:4.1f} s  "
            f"{found['payload_bytes']:.0f} bytes a row and round"
        )
    print(f"budget: {BUDGET}")
    if args.json:
        print(json.dumps({"benchmark": "pool", "threads": args.threads, "budget": BUDGET, "results": results}))


if __name__ == "__main__":
    main()
