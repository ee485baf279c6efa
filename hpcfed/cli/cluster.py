"""The commands for clusters: submit, plan and doctor. cli.py puts them beside the others; heavy imports wait."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..errors import ConfigError, HpcfedError, TransportError
from .options import Overrides

if TYPE_CHECKING:
    from ..cluster import Ask
    from ..config import Recipe
    from ..transport.base import Transport
    from ..transport.launch import Launch

OWN_FLAGS = ("--dry-run", "--wait")  # not part of the line that a script says it was rendered by


def submit(
    recipes: Annotated[list[str], typer.Argument(metavar="RECIPE...", help="Several make an array job over them.")],
    nodes: Annotated[int, typer.Option(help="Nodes of the job.")],
    time: Annotated[str, typer.Option(help="Time limit, as Slurm writes it; a run that needs more is queued again.")],
    tasks: Annotated[
        int | None, typer.Option("--tasks-per-node", help="Ranks a node; default one, or one a GPU.")
    ] = None,
    gpus: Annotated[int | None, typer.Option("--gpus-per-node", help="GPUs a node, one rank each.")] = None,
    cpus: Annotated[
        int | None, typer.Option("--cpus-per-task", help="Cores and threads a rank; default mesh.threads, or one.")
    ] = None,
    partition: Annotated[str | None, typer.Option(help="Slurm partition.")] = None,
    account: Annotated[str | None, typer.Option(help="Slurm account.")] = None,
    array: Annotated[
        str | None, typer.Option(help="Task ids, e.g. 0-7%3: one run a seed, or of several recipes the chosen ones.")
    ] = None,
    mpi: Annotated[
        Literal["none", "pmix", "pmi2"], typer.Option(help="pmix: Open MPI. pmi2: MPICH, Intel MPI. none: gloo, NCCL.")
    ] = "none",
    after: Annotated[str | None, typer.Option(help="Start after this job has succeeded.")] = None,
    lead: Annotated[
        int, typer.Option("--stop-before", help="Seconds before the time limit at which the run stops cleanly.")
    ] = 120,
    scaling: Annotated[str | None, typer.Option(help="Numbers of nodes, e.g. 1,2,4: a scaling study.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder, or the folder of an array's runs; default runs/RECIPE.")
    ] = None,
    set_: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the script; submit nothing.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the job; end with its exit status.")] = False,
) -> None:
    """Render a Slurm batch script for RECIPE, and submit it. Submitted again, an unfinished run goes on."""
    from ..cluster import Ask, check, render
    from ..config import load_recipe

    wanted = [load_recipe(recipe, set_ or []) for recipe in recipes]
    several = len(recipes) > 1
    ask = Ask(
        recipes=tuple(recipes),
        out=out or Path("runs") / ("sweep" if several else Path(recipes[0]).stem),
        nodes=nodes,
        tasks=tasks if tasks is not None else gpus or 1,
        time=time,
        line=shlex.join(["hpcfed", *(part for part in sys.argv[1:] if part not in OWN_FLAGS)]).replace("\n", " "),
        overrides=tuple(set_ or ()),
        cpus=cpus if cpus is not None else max(1, *(recipe.mesh.threads for recipe in wanted)),
        gpus=gpus,
        partition=partition,
        account=account,
        array=array or (f"0-{len(recipes) - 1}" if several else None),
        mpi=mpi,
        after=after,
        lead=lead,
        scaling=_numbers(scaling) if scaling else (),
    )
    check(ask, wanted)
    script = render(ask, wanted)
    if dry_run:
        print(script, end="")
    else:
        _hand_in(ask, wanted, script, wait)


def _hand_in(ask: Ask, wanted: list[Recipe], script: str, wait: bool) -> None:
    """Give the script to Slurm; with `wait`, follow the job and end with its exit status."""
    from ..cluster import check_limits, follow, queue
    from ..cluster.script import SCRIPT

    check_limits(ask)
    _check_folder(ask, wanted[0])
    job = queue(script, ask.out / SCRIPT)
    print(job, flush=True)
    log = str(ask.log).replace("%j", job).replace("%A", job).replace("%a", "TASK")
    print(f"submitted {ask.out / SCRIPT}; it will write {log}", file=sys.stderr, flush=True)
    if not wait:
        return
    try:
        raise SystemExit(follow(job, ask.folders(), max(recipe.rounds for recipe in wanted)))
    except KeyboardInterrupt:
        print(f"\nhpcfed: job {job} goes on unwatched; scancel {job} would end it", file=sys.stderr)
        raise SystemExit(130) from None


def _numbers(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        raise ConfigError(f"--scaling {text!r}: write numbers of nodes, e.g. 1,2,4")
    return tuple(sorted({int(part) for part in parts}))


def _check_folder(ask: Ask, recipe: Recipe) -> None:
    """What the job would find in the run folder, said before it waits in a queue."""
    from ..config import to_toml
    from ..runs.read import MAY_CHANGE, RECIPE, SUMMARY, read_summary, recipe_differences

    if len(ask.folders()) > 1 or not (ask.out / RECIPE).is_file():
        return
    if (ask.out / SUMMARY).is_file() and (status := read_summary(ask.out)["status"]) != "interrupted":
        raise ConfigError(f"{ask.out}: holds a run that is {status}; choose another --out")
    if differences := recipe_differences((ask.out / RECIPE).read_text("utf-8"), to_toml(recipe), MAY_CHANGE):
        raise ConfigError(
            f"{ask.out}: holds an unfinished run with other settings ({'; '.join(differences)}); choose another --out"
        )


def doctor(
    recipe: Annotated[str | None, typer.Argument(metavar="[RECIPE]", help="The recipe that is to run.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder: do all ranks see it?")] = None,
    set_: Overrides = None,
) -> None:
    """Which rank is where, whether all can talk and count, and what is wrong. Exit status 1 if something is."""
    from ..cluster.doctor import check_launch, explain
    from ..config import load_recipe
    from ..transport.base import agree
    from ..transport.choose import choose
    from ..transport.guard import guard
    from ..transport.launch import discover

    launch = discover()
    wanted, problem = None, None
    with guard(launch):
        try:
            wanted = load_recipe(recipe, set_ or []) if recipe else None
        except HpcfedError as e:
            problem = str(e)
        setting = wanted.mesh.transport if wanted else "auto"
        remark = check_launch(launch, setting)
        if remark and launch.local_rank == 0:
            print(f"note: {remark}", file=sys.stderr, flush=True)
        try:
            transport = choose(launch, setting)
        except (TransportError, ConfigError) as e:
            raise TransportError(explain(launch, e, setting)) from None
    with guard(transport):
        agree(transport, problem)
        wrong = _examine(launch, transport, wanted, out)
    if wrong:
        raise SystemExit(1)


def _examine(launch: Launch, transport: Transport, wanted: Recipe | None, out: Path | None) -> list[str]:
    """Collective over all ranks: what is wrong, which rank 0 prints with all the rest."""
    from ..cluster.doctor import by_node, examine, facts, notes, report, within_rows
    from ..transport.base import agree
    from ..transport.choose import spread

    mine, problem = {}, None
    try:
        mine = facts(launch, transport, wanted)
    except ConfigError as e:
        problem = str(e)
    agree(transport, problem)
    ranks, done, wrong = examine(transport, mine, out)
    remarks = by_node(transport, [one["node"] for one in ranks], notes(launch, mine))
    if wanted and wanted.mesh.shards > 1:
        transport = spread(transport, launch, wanted.mesh.shards)
        line, apart = within_rows(transport)
        done, wrong = [*done, line], wrong + apart
    if transport.rank == 0:
        print("\n".join(report(ranks, done, launch.launcher)))
        print("".join(f"note: {text}\n" for text in remarks), end="")
        print("\n".join(f"wrong: {text}" for text in wrong) or "nothing is wrong", flush=True)
    transport.close()
    return wrong


def plan(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A shipped recipe (digits, ...) or a TOML file.")],
    nodes: Annotated[int, typer.Option(min=1, help="Nodes of the job.")] = 1,
    per_node: Annotated[int, typer.Option("--gpus-per-node", min=1, help="Ranks on a node, one a GPU.")] = 1,
    memory: Annotated[
        str | None, typer.Option("--gpu-memory", help="Of each GPU, e.g. 80GB; default: no limit.")
    ] = None,
    tokens: Annotated[int | None, typer.Option(min=1, help="Of an example; default: the most the task allows.")] = None,
    tflops: Annotated[float | None, typer.Option(help="Sustained TFLOP/s of a rank, for the time.")] = None,
    draws: Annotated[float | None, typer.Option(help="Numbers a rank draws, in G/s, for the time.")] = None,
    set_: Overrides = None,
) -> None:
    """Before you queue a run: memory of a rank, shards it needs, bytes and time of a round, size of the orbit."""
    from ..config import load_recipe
    from ..plan.plan import check_shapes, make_plan, parse_bytes, speed_of
    from .tables import plan_table

    wanted = load_recipe(recipe, set_ or [])
    limit = parse_bytes("--gpu-memory", memory) if memory else None
    speed = speed_of(wanted, limit is not None, tflops, draws)
    found = make_plan(wanted, tokens, "cpu" if limit is None else "cuda")
    shapes = found.shapes(nodes, per_node, limit, speed)
    plan_table(found, shapes, speed.what, limit)
    check_shapes(wanted, shapes, limit)
