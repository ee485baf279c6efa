"""What is wrong with a launch: which rank is where, whether they can talk and count, and in what they differ.

Every rank gathers its facts, all see those of all, and rank 0 prints them. A problem would spoil a run; a note is
something to know. Nothing here trains, and nothing stays behind.

    ring     a token goes from rank to rank, each adds its number, all must hold the same at the end
    rows     the ranks of a row, where it has several, tell each other who they are
    count    127 and 128 voters that agree; in eight bits 128 votes would be -128
    clocks   read right after a barrier, several times: the smallest spread that was seen is the clocks'
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..config import Recipe, to_toml
from ..errors import ConfigError, TransportError
from ..messages import Ballots
from ..transport.base import Transport
from ..transport.choose import speaks_mpi
from ..transport.launch import Launch, describe, meeting_point, resolves
from ..transport.mesh import MeshShape
from .host import own_name

APART = 2.0  # seconds between clocks, beyond which logs of several nodes and certificates mislead
LOOKS = 3
VOTES = 9
NO_NAME = "where ranks do not meet, set GLOO_SOCKET_IFNAME to the network's interface, or put the name in /etc/hosts"
PMI = {"PMIX_RANK", "PMI_RANK"}
#: Variables of launchers that hpcfed does not know, and of a PMI that no library here has used.
STRANGERS = ("PMIX_RANK", "PMI_RANK", "PALS_RANKID", "FLUX_TASK_RANK", "ALPS_APP_PE", "JSM_NAMESPACE_RANK")
#: What must be the same on every rank: key of a rank's facts -> what it is called.
SAME = {
    "backend": "what carries the votes",
    "versions": "the software",
    "recipe": "the recipe",
    "threads": "the number of threads (OMP_NUM_THREADS, mesh.threads)",
    "size": "the number of ranks that the launcher says there are",
    "restart": "the number of restarts",
}


def facts(launch: Launch, transport: Transport, recipe: Recipe | None) -> dict[str, Any]:
    """What this rank is; plain JSON. ConfigError if the ranks cannot be laid out as the recipe wants."""
    mesh = MeshShape.fit(launch.size, recipe.mesh.shards if recipe else 1)
    if recipe:
        mesh.check_groups(-(-recipe.clients.count // recipe.clients.group))
    threads = recipe.mesh.threads if recipe else 0
    return {
        "rank": launch.rank,
        "node": platform.node(),
        "row": mesh.row_of(launch.rank),
        "shard": mesh.shard_of(launch.rank),
        "device": _device(launch),
        "backend": transport.name,
        "versions": describe(launch)["versions"],
        "recipe": hashlib.sha256(to_toml(recipe).encode()).hexdigest()[:16] if recipe else "none",
        "threads": threads or torch.get_num_threads(),
        "cpus": describe(launch)["cpus"],
        "local_size": launch.local_size,
        "size": launch.size,
        "restart": launch.restart,
    }


def _device(launch: Launch) -> str:
    if not torch.cuda.is_available():
        return "cpu"
    if launch.local_rank >= torch.cuda.device_count():
        return f"cpu ({torch.cuda.device_count()} GPUs for {launch.local_size} ranks)"
    return f"cuda:{launch.local_rank} {torch.cuda.get_device_name(launch.local_rank)}"


def examine(
    transport: Transport, own_facts: Mapping[str, Any], out: Path | None = None, clock: Callable[[], float] = time.time
) -> tuple[list[dict[str, Any]], list[str], list[str]]:
    """Collective: the facts of all ranks, what was done, and what is wrong; the same on every rank.

    own_facts: this rank's `facts`.  out: a run folder that all ranks should see.  clock: seconds since a common epoch.
    """
    ranks = [json.loads(raw) for raw in transport.all_gather(json.dumps(own_facts).encode())]
    wrong = [text for key, what in SAME.items() if (text := _differs(ranks, key, what))]
    done, failed = _talk(transport)
    wrong += failed
    apart = _clocks(transport, clock)
    if max(apart) > APART:
        slow, fast = apart.index(0.0), apart.index(max(apart))
        wrong.append(
            f"clocks: rank {fast} on {ranks[fast]['node']} is {max(apart):.1f} s ahead of rank {slow} on "
            f"{ranks[slow]['node']}; start NTP or chrony there"
        )
    if out is not None:
        wrong += _folder(transport, out, [one["node"] for one in ranks])
    return ranks, done, wrong


def _differs(ranks: Sequence[Mapping[str, Any]], key: str, what: str) -> str:
    """Who holds what, if not all the same."""
    holders: dict[str, list[int]] = {}
    for one in ranks:
        holders.setdefault(json.dumps(one[key], sort_keys=True), []).append(one["rank"])
    if len(holders) == 1:
        return ""
    values = {raw: json.loads(raw) for raw in holders}
    if all(isinstance(value, dict) for value in values.values()):  # of versions show only those that differ
        names = sorted({name for value in values.values() for name in value})
        unlike = [name for name in names if len({value.get(name) for value in values.values()}) > 1]
        values = {raw: " ".join(f"{name} {value.get(name)}" for name in unlike) for raw, value in values.items()}
    return f"{what} differs: " + "; ".join(f"{_ranks(who)}: {values[raw]}" for raw, who in holders.items())


def _ranks(who: Sequence[int]) -> str:
    return f"rank{'s' * (len(who) > 1)} {_some([str(rank) for rank in who])}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + ", ..." * (len(names) > 8)


def _talk(transport: Transport) -> tuple[list[str], list[str]]:
    """Collective: the ring and the counts; what was done, and what failed."""
    token = b""
    for row in range(transport.rows):
        token = transport.broadcast(token + row.to_bytes(4, "little"), row)
    expected = b"".join(row.to_bytes(4, "little") for row in range(transport.rows))
    passed = transport.all_gather(token) == [expected] * transport.rows
    done, wrong = [f"ring of {transport.rows}: {'passed' if passed else 'FAILED'}"], list[str]()
    if not passed:
        wrong.append("the ring: a message did not come back as it was sent; the network or its library alters data")
    for voters in (127, 128):
        counted, took = _count(transport, voters)
        done.append(f"{voters} votes for: counted {counted}, {1e6 * took:.0f} us a vote")
        if counted != voters:
            wrong.append(f"{voters} clients voted +1 and the count is {counted}: sums over ranks are not exact here")
    return done, wrong


def within_rows(transport: Transport) -> tuple[str, list[str]]:
    """Collective, after `spread`: whether the ranks of every row reach one another; what was done, what failed."""
    shards = transport.row.shards
    ranks = [int(raw) for raw in transport.row.gather(str(transport.rank).encode())]
    well = ranks == list(MeshShape(transport.rows, shards).ranks_of_row(transport.row.index))
    apart = [rank for rank, said in enumerate(transport.everyone(b"1" if well else b"0")) if said != b"1"]
    line = f"{transport.rows} rows of {shards} shards: {'FAILED' if apart else 'passed'}"
    return line, [f"{_ranks(apart)}: in a row with others than mesh.shards={shards} says"] if apart else []


def _count(transport: Transport, voters: int) -> tuple[int, float]:
    """Collective: the count of `voters` votes +1, spread over all rows, and the median time of one vote in seconds."""
    bounds = [voters * row // transport.rows for row in range(transport.rows + 1)]
    hosted = [after - before for before, after in pairwise(bounds)]
    first, last = bounds[transport.row.index], bounds[transport.row.index + 1]
    ballots = Ballots(list(range(first, last)), np.ones((last - first, 1), np.int8))
    times, sums = list[float](), voters
    for _ in range(VOTES):
        began = time.monotonic()
        counted = int(transport.tally(ballots, voters, hosted).sums[0])
        times.append(time.monotonic() - began)
        sums = counted if counted != voters else sums
    return sums, sorted(times)[len(times) // 2]


def _clocks(transport: Transport, clock: Callable[[], float]) -> list[float]:
    """Collective: how far every rank's clock is ahead of the slowest, seconds."""
    best = [float("inf")]
    for _ in range(LOOKS):
        transport.barrier()  # a rank that is late out of it looks like a clock that is ahead: the best look counts
        read = [float(raw) for raw in transport.all_gather(repr(clock()).encode())]
        best = min(best, [one - min(read) for one in read], key=max)
    return best


def _folder(transport: Transport, out: Path, nodes: Sequence[str]) -> list[str]:
    """Collective: whether every rank reads what row 0 writes in the folder; nothing of it stays."""
    name, token, problem, made = "", "", "", list[Path]()
    if transport.row.index == 0:
        name, token = f".doctor-{secrets.token_hex(8)}", secrets.token_hex(8)
        try:
            made = [folder for folder in (out, *out.parents) if not folder.exists()]  # innermost first
            out.mkdir(parents=True, exist_ok=True)
            (out / name).write_text(token)
        except OSError as error:
            problem = f"--out {out}: rank 0 on {nodes[0]} cannot write there: {error.strerror}"
    name, token, problem = json.loads(transport.broadcast(json.dumps([name, token, problem]).encode()))
    if problem:
        return [problem]
    try:
        seen = (out / name).read_text() == token
    except OSError:
        seen = False
    blind = [row for row, said in enumerate(transport.all_gather(b"1" if seen else b"0")) if said != b"1"]
    if transport.row.index == 0:
        with suppress(OSError):
            (out / name).unlink()
            for folder in made:
                folder.rmdir()
    if not blind:
        return []
    where = _some(sorted({nodes[row] for row in blind}))
    return [f"--out {out}: {_ranks(blind)} on {where}: what rank 0 writes there is not seen; use a shared file system"]


def notes(launch: Launch, own_facts: Mapping[str, Any]) -> list[str]:
    """What this node's user should know, though it stops nothing."""
    remarks = []
    if own_facts["threads"] * own_facts["local_size"] > own_facts["cpus"]:
        remarks.append(
            f"{own_facts['local_size']} ranks of {own_facts['threads']} threads share {own_facts['cpus']} cores; lower "
            "OMP_NUM_THREADS, or start fewer ranks there"
        )
    if launch.size > 1 and not own_facts["backend"].startswith("MPI") and not resolves(own_facts["node"]):
        remarks.append(f"its own host name has no address; {NO_NAME}")
    elif launch.size == 1 and (nameless := own_name(own_facts["node"])):
        remarks.append(nameless)
    return remarks


def by_node(transport: Transport, nodes: Sequence[str], own_notes: Sequence[str]) -> list[str]:
    """Collective: the notes of all ranks, each once, with the nodes that it is about."""
    about: dict[str, dict[str, None]] = {}
    for node, raw in zip(nodes, transport.all_gather(json.dumps(own_notes).encode()), strict=True):
        for text in json.loads(raw):
            about.setdefault(text, {})[node] = None
    return [f"{_some(list(where))}: {text}" for text, where in about.items()]


def check_launch(launch: Launch, setting: str, environ: Mapping[str, str] = os.environ) -> str:
    """What can be seen before ranks meet: a remark, or nothing; ConfigError if they cannot meet as they are.

    setting: mesh.transport.
    """
    strange = [name for name in STRANGERS if name in environ]
    if launch.launcher == "alone" and strange:
        raise ConfigError(
            f"{strange[0]}={environ[strange[0]]} is set, so some launcher started this process, but hpcfed takes "
            "itself to be alone: N such processes would train N times. Use torchrun, srun, or the mpirun of "
            "Open MPI, MPICH or Intel MPI, which set variables that name the number of ranks"
        )
    if launch.size == 1 or setting == "mpi" or speaks_mpi(launch):
        return ""
    host = meeting_point(launch, environ).host
    if not resolves(host):  # said now: connecting would try again for two minutes
        raise ConfigError(
            f"{host} has no address on {platform.node()}, and the ranks are to meet there; set MASTER_ADDR to a name "
            "or an address of rank 0's node that all nodes know"
        )
    if setting == "auto" and PMI & environ.keys():
        return (
            f"{platform.node()}: {launch.launcher} speaks PMI, but mpi4py finds no MPI library here, so this rank will "
            "vote by torch.distributed; ranks that find one would wait for it in vain: --set mesh.transport=torch"
        )
    return ""


def explain(
    launch: Launch, error: TransportError | ConfigError, setting: str, environ: Mapping[str, str] = os.environ
) -> str:
    """Why the ranks cannot be connected, with what this rank can see of the cause."""
    causes = []
    if launch.launcher == "slurm" and setting == "mpi" and not PMI & environ.keys():
        causes.append(
            "srun gave the ranks no PMI, so that every one is an MPI world of its own; start with srun --mpi=pmix "
            "(Open MPI) or --mpi=pmi2 (MPICH, Intel MPI); srun --mpi=list shows what this Slurm has"
        )
    if setting != "mpi" and not isinstance(error, ConfigError) and not resolves(platform.node()):
        causes.append(f"{platform.node()} has no address under its own name; {NO_NAME}")
    return "\n  ".join([f"{launch.size} ranks by {launch.launcher} cannot talk: {error}", *causes])


def report(ranks: Sequence[Mapping[str, Any]], done: Sequence[str], launcher: str) -> list[str]:
    """The lines that rank 0 prints: a table of ranks, then what they have in common."""
    columns = ("rank", "node", "row", "shard", "device", "threads")
    table = [columns, *(tuple(str(one[column]) for column in columns) for one in ranks)]
    widths = [max(len(line[i]) for line in table) for i in range(len(columns))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]
    versions = ", ".join(f"{name} {version}" for name, version in ranks[0]["versions"].items() if version)
    return [*lines, f"{len(ranks)} ranks by {launcher}, votes by {ranks[0]['backend']}", versions, *done]
