"""A batch script for Slurm, as a pure function of what was asked for; slurm/*.sbatch are such scripts.

What every script does: Slurm signals the batch shell (--signal=B:USR1@SECONDS) before the time is up, the shell hands
the signal to srun and so to every rank, the run ends cleanly after its round, and the shell queues the job again. The
next start goes on from the journal. scancel and a failed rank end the job for good; submitted again, it goes on.

Legend   ranks = nodes * tasks a node = rows * shards; a row lies within one node or fills whole nodes
Promise  An impossible shape is refused before it waits in a queue, with the possible ones. Nothing here imports torch.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..config import Recipe
from ..errors import ConfigError
from ..transport.mesh import MeshShape

TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<first>\d+)(?::(?P<second>\d+))?(?::(?P<third>\d+))?")
ARRAY = re.compile(r"(?P<ids>\d+(?:-\d+(?::\d+)?)?(?:,\d+(?:-\d+(?::\d+)?)?)*)(?:%[1-9]\d*)?")
PLAIN = re.compile(r"[\w./+=@,-]+")
SCRIPT = "submit.sbatch"  # in the run folder


@dataclass(frozen=True)
class JobSpec:
    """What was asked for.  recipes: several make an array over them.  time: Slurm's notation.  out: run folder.

    tasks: ranks a node.  cpus: a rank's threads.  array: Slurm's task ids, which are seeds if there is one recipe.
    mpi: srun's --mpi.  after: the job that must have succeeded.  lead: seconds before the end at which the run stops.
    scaling: numbers of nodes of a scaling study.  line: the command, for the script's reader.
    """

    recipes: tuple[str, ...]
    out: Path
    nodes: int
    tasks: int
    time: str
    line: str
    overrides: tuple[str, ...] = ()
    cpus: int = 1
    gpus: int | None = None
    partition: str | None = None
    account: str | None = None
    array: str | None = None
    mpi: str = "none"
    after: str | None = None
    lead: int = 120
    scaling: tuple[int, ...] = ()

    @property
    def ranks(self) -> int:
        return self.nodes * self.tasks

    @property
    def ids(self) -> list[int]:
        """Task ids of the array; empty if there is none."""
        return array_ids(self.array) if self.array else []

    @property
    def log(self) -> Path:
        """Where the job writes, in Slurm's pattern."""
        return self.out / ("slurm-%A_%a.log" if self.array else "slurm-%j.log")

    def folders(self) -> list[Path]:
        """Run folders of the job's runs."""
        if self.scaling:
            return [self.out / f"{kind}-{nodes}" for kind in ("strong", "weak") for nodes in self.scaling]
        if len(self.recipes) > 1:
            return [self.out / Path(self.recipes[i]).stem for i in self.ids]
        return [self.out / f"seed-{i}" for i in self.ids] or [self.out]


def seconds(time: str) -> int:
    """Slurm's time: minutes, minutes:seconds, hours:minutes:seconds, days-hours[:minutes[:seconds]]."""
    match = TIME.fullmatch(time)
    if not match:
        raise ConfigError(f"--time {time!r}: write hours:minutes:seconds, minutes, or days-hours, e.g. 01:30:00")
    first, second, third = (int(match[name] or 0) for name in ("first", "second", "third"))
    if match["days"]:
        return ((int(match["days"]) * 24 + first) * 60 + second) * 60 + third
    return (first * 60 + second) * 60 + third if match["third"] else first * 60 + second


def array_ids(array: str) -> list[int]:
    """Task ids of Slurm's notation: "0-7%3" are 0..7, three at a time."""
    match = ARRAY.fullmatch(array)
    if not match:
        raise ConfigError(f"--array {array!r}: write task ids as Slurm does, e.g. 0-7, 0-7%3 (three at a time), 1,5,9")
    ids: list[int] = []
    for part in match["ids"].split(","):
        first, _, rest = part.partition("-")
        last, _, step = rest.partition(":")
        if step == "0" or (last and int(last) < int(first)):
            raise ConfigError(f"--array {array!r}: {part} has no task")
        ids += range(int(first), int(last or first) + 1, int(step or 1))
    return ids


def check(spec: JobSpec, recipes: Sequence[Recipe]) -> None:
    """Raise ConfigError, with what would do, if Slurm or one of the runs could not start like this."""
    for option, value in (("nodes", spec.nodes), ("tasks-per-node", spec.tasks), ("cpus-per-task", spec.cpus)):
        if value < 1:
            raise ConfigError(f"--{option} {value}: must be at least 1")
    if spec.gpus is not None and spec.tasks != spec.gpus:
        raise ConfigError(
            f"--gpus-per-node {spec.gpus} with --tasks-per-node {spec.tasks}: a rank has one GPU; leave "
            f"--tasks-per-node out, or ask for --gpus-per-node {spec.tasks}"
        )
    if not 0 < spec.lead < seconds(spec.time):
        raise ConfigError(
            f"--time {spec.time} with --stop-before {spec.lead}: the run is asked to stop that many seconds before the "
            "end; ask for more time, or let it stop later"
        )
    for text in (str(spec.out), spec.partition, spec.account, spec.after):
        if text is not None and not PLAIN.fullmatch(text):  # Slurm expands % in paths and splits its lines at blanks
            raise ConfigError(f"{text!r}: Slurm's options take letters, digits and ._-/+=@, only")
    _check_array(spec)
    for name, recipe in zip(spec.recipes, recipes, strict=True):
        if recipe.mesh.transport == "mpi" and spec.mpi == "none":
            raise ConfigError(f'{name}: mesh.transport="mpi" needs --mpi pmix (Open MPI) or --mpi pmi2 (MPICH, Intel)')
        for nodes in spec.scaling or (spec.nodes,):
            _check_shape(spec, name, recipe, nodes)


def _check_array(spec: JobSpec) -> None:
    ids = spec.ids  # checks the notation
    if spec.scaling and (ids or len(spec.recipes) > 1):
        raise ConfigError("--scaling: a scaling study is one job with one recipe; leave --array out")
    if spec.scaling and max(spec.scaling) > spec.nodes:
        raise ConfigError(f"--scaling: {max(spec.scaling)} nodes of a job of --nodes {spec.nodes}")
    if (
        spec.array
        and len(spec.recipes) == 1
        and any(item.partition("=")[0].strip() == "seed" for item in spec.overrides)
    ):
        raise ConfigError("--set seed with --array: the array's task ids are the seeds; leave --set seed out")
    if len(spec.recipes) > 1:
        stems = [Path(recipe).stem for recipe in spec.recipes]
        if len(set(stems)) < len(stems):
            raise ConfigError(f"two recipes are called {max(stems, key=stems.count)}: their runs would share a folder")
        if beyond := [i for i in ids if i >= len(stems)]:
            raise ConfigError(
                f"--array {spec.array}: there is no recipe {beyond[0]}; {len(stems)} are 0-{len(stems) - 1}"
            )


def _check_shape(spec: JobSpec, name: str, recipe: Recipe, nodes: int) -> None:
    shards, tasks, clients = recipe.mesh.shards, spec.tasks, recipe.clients
    if tasks % shards and shards % tasks:
        fits = sorted({n for n in range(1, shards + 1) if shards % n == 0} | {shards * n for n in (2, 4)})
        raise ConfigError(
            f"{name}: mesh.shards={shards} with {tasks} ranks a node would put a row across nodes unevenly; use "
            f"--tasks-per-node (or --gpus-per-node) from {fits}"
        )
    if nodes * tasks % shards:
        raise ConfigError(
            f"{name}: mesh.shards={shards} takes {shards // tasks} nodes of {tasks} ranks a row, and --nodes {nodes} "
            f"is no multiple of that"
        )
    rows, groups = MeshShape.fit(nodes * tasks, shards).rows, -(-clients.count // clients.group)
    if rows > groups:
        most = groups * shards // tasks
        cure = f"use at most --nodes {most}" if most else f"use --nodes 1 --tasks-per-node {groups * shards}"
        raise ConfigError(
            f"{name}: --nodes {nodes} with {tasks} ranks a node is {rows} rows, but {clients.count} clients in groups "
            f"of clients.group={clients.group} keep only {groups} busy; {cure}, or lower clients.group"
        )


def render(spec: JobSpec, recipes: Sequence[Recipe]) -> str:
    """The batch script."""
    return "\n".join(
        [
            *_head(spec),
            "",
            COMMON.format(lead=spec.lead, srun=_srun(spec), cpus=spec.cpus, tasks=spec.tasks),
            *_body(spec, recipes),
        ]
    )


def _head(spec: JobSpec) -> list[str]:
    name = Path(spec.recipes[0]).stem if len(spec.recipes) == 1 else "sweep"
    options = {
        "job-name": re.sub(r"[^\w.-]", "-", name),
        "nodes": spec.nodes,
        "ntasks": spec.ranks,
        "ntasks-per-node": spec.tasks,
        "cpus-per-task": spec.cpus,
        "gpus-per-node": spec.gpus,
        "time": spec.time,
        "partition": spec.partition,
        "account": spec.account,
        "array": spec.array,
        "dependency": f"afterok:{spec.after}" if spec.after else None,
        "kill-on-invalid-dep": "yes" if spec.after else None,  # else the job waits for ever for one that failed
        "output": spec.log,
        "open-mode": "append",  # a job that was queued again goes on in its log
        "requeue": "",
        "signal": f"B:USR1@{spec.lead}",
    }
    lines = [f"#SBATCH --{key}" + f"={value}" * (value != "") for key, value in options.items() if value is not None]
    return ["#!/bin/bash", f"# {spec.line}", *lines]


def _srun(spec: JobSpec) -> str:
    # cpus: since Slurm 22.05 srun does not take it from the job. ntasks, in run(): it does, also for fewer nodes.
    return f"srun --kill-on-bad-exit=1 --mpi={spec.mpi} --cpus-per-task={spec.cpus} --ntasks-per-node={spec.tasks}"


#: status and run; {{ }} are the shell's own braces.
COMMON = """\
set -u
export OMP_NUM_THREADS={cpus} # the same on every rank, and in every run whose fingerprint is to be the same

# {lead} s before the time is up Slurm signals this shell: every rank ends after its round, and the job queues again.
asked= step=
trap 'asked=1; [ -z "$step" ] || kill -USR1 "$step"' USR1

# status FOLDER: how the last run there ended, empty if that is not known
status() {{ sed -n 's/^  "status": "\\(.*\\)".*/\\1/p' "$1/summary.json" 2>/dev/null; }}

# again FOLDER: end, and queue the job again
again() {{
    echo "$1: time is up, the job is queued again"
    scontrol requeue "$SLURM_JOB_ID"
    exit
}}

# run FOLDER NODES RECIPE ...: start the run in FOLDER, go on with it, or leave it if it is finished
run() {{
    local folder=$1 nodes=$2 resume=() code
    shift 2
    case "$(status "$folder")" in finished | "budget spent")
        echo "$folder: is finished"
        return 0
        ;;
    esac
    [ -z "$asked" ] || again "$folder"
    if [ -e "$folder/journal" ] || [ -e "$folder/weights.safetensors" ]; then resume=(--resume); fi
    echo "$folder: job $SLURM_JOB_ID, start $((${{SLURM_RESTART_COUNT:-0}} + 1)) on $SLURM_JOB_NODELIST"
    {srun} --nodes="$nodes" --ntasks=$((nodes * {tasks})) \\
        hpcfed train "$@" --out "$folder" "${{resume[@]}}" &
    step=$!
    while kill -0 "$step" 2>/dev/null; do wait "$step"; done # the signal interrupts wait
    wait "$step"
    code=$?
    [ "$asked" ] && [ "$code" = 138 ] && again "$folder" # USR1 before the ranks listened: nothing is lost
    [ "$asked" ] && [ "$code" = 0 ] && [ "$(status "$folder")" = interrupted ] && again "$folder"
    if [ "$code" = 0 ] && [ "$(status "$folder")" = interrupted ]; then
        echo "$folder: interrupted; submit the job again to go on" >&2
        return 1
    fi
    [ "$code" = 0 ] || echo "$folder: ended with code $code; the rank that failed has said why above" >&2
    return "$code"
}}
"""


def _body(spec: JobSpec, recipes: Sequence[Recipe]) -> list[str]:
    more = [part for item in spec.overrides for part in ("--set", item)]
    if spec.scaling:
        return _scaling(spec, recipes[0], shlex.join([spec.recipes[0], *more]))
    if len(spec.recipes) > 1:
        return [
            f"recipes=({shlex.join(spec.recipes)}) # the array's task ids count them",
            "recipe=${recipes[SLURM_ARRAY_TASK_ID]}",
            f'run "{spec.out}/$(basename "$recipe" .toml)" {spec.nodes} "$recipe" {shlex.join(more)}'.rstrip(),
            "",
        ]
    train = shlex.join([spec.recipes[0], *more])
    if spec.array:
        seed = "# the array's task ids are the seeds"
        return [
            seed,
            f'run "{spec.out}/seed-$SLURM_ARRAY_TASK_ID" {spec.nodes} {train} --set "seed=$SLURM_ARRAY_TASK_ID"',
            "",
        ]
    return [f"run {spec.out} {spec.nodes} {train}", ""]


def _scaling(spec: JobSpec, recipe: Recipe, train: str) -> list[str]:
    """Strong scaling: the recipe's clients on more and more nodes.  Weak: as many clients a node as the recipe has."""
    clients = recipe.clients
    weak = [f'--set "clients.count=$((nodes * {clients.count}))"']
    if isinstance(clients.per_round, int):
        weak.append(f'--set "clients.per_round=$((nodes * {clients.per_round}))"')
    return [
        f"for nodes in {' '.join(map(str, spec.scaling))}; do",
        "    # strong: the same clients on more nodes; weak: the same number of clients a node",
        f'    run "{spec.out}/strong-$nodes" "$nodes" {train} || exit',
        f'    run "{spec.out}/weak-$nodes" "$nodes" {train} {" ".join(weak)} || exit',
        "done",
        f"hpcfed compare {' '.join(map(str, spec.folders()))}",
        f"hpcfed plot {' '.join(map(str, spec.folders()))} --out {spec.out}/scaling.png",
        "",
    ]
