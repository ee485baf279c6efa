"""The commands for clusters: submit, plan and doctor. main.py puts them beside the others; heavy imports wait."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..errors import ConfigError, HpcfedError, TransportError
from .options import Overrides

if TYPE_CHECKING:
    from ..cluster import JobSpec
    from ..config import Recipe
    from ..transport.base import Transport
    from ..transport.launch import Launch

OWN_FLAGS = ("--dry-run", "--wait")  # not part of the line that a script says it was rendered by


def submit(
    names: Annotated[list[str], typer.Argument(metavar="RECIPE...", help="Several make an array job over them.")],
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
    from ..cluster import JobSpec, check, render
    from ..config import load_recipe

    recipes = [load_recipe(name, set_ or []) for name in names]
    several = len(names) > 1
    spec = JobSpec(
        recipes=tuple(names),
        out=out or Path("runs") / ("sweep" if several else Path(names[0]).stem),
        nodes=nodes,
        tasks=tasks if tasks is not None else gpus or 1,
        time=time,
        line=shlex.join(["hpcfed", *(part for part in sys.argv[1:] if part not in OWN_FLAGS)]).replace("\n", " "),
        overrides=tuple(set_ or ()),
        cpus=cpus if cpus is not None else max(1, *(recipe.mesh.threads for recipe in recipes)),
        gpus=gpus,
        partition=partition,
        account=account,
        array=array or (f"0-{len(names) - 1}" if several else None),
        mpi=mpi,
        after=after,
        lead=lead,
        scaling=_numbers(scaling) if scaling else (),
    )
    check(spec, recipes)
    script = render(spec, recipes)
    if dry_run:
        print(script, end="")
    else:
        _hand_in(spec, recipes, script, wait)


def _hand_in(spec: JobSpec, recipes: list[Recipe], script: str, wait: bool) -> None:
    """Give the script to Slurm; with `wait`, follow the job and end with its exit status."""
    from ..cluster import check_limits, follow, queue
    from ..cluster.script import SCRIPT

    check_limits(spec)
    _check_folder(spec, recipes[0])
    job = queue(script, spec.out / SCRIPT)
    print(job, flush=True)
    log = str(spec.log).replace("%j", job).replace("%A", job).replace("%a", "TASK")
    print(f"submitted {spec.out / SCRIPT}; it will write {log}", file=sys.stderr, flush=True)
    if not wait:
        return
    try:
        raise SystemExit(follow(job, spec.folders(), max(recipe.rounds for recipe in recipes)))
    except KeyboardInterrupt:
        print(f"\nhpcfed: job {job} goes on unwatched; scancel {job} would end it", file=sys.stderr)
        raise SystemExit(130) from None


def _numbers(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        raise ConfigError(f"--scaling {text!r}: write numbers of nodes, e.g. 1,2,4")
    return tuple(sorted({int(part) for part in parts}))


def _check_folder(spec: JobSpec, recipe: Recipe) -> None:
    """What the job would find in the run folder, said before it waits in a queue."""
    from ..config import to_toml
    from ..runs.read import MAY_CHANGE, RECIPE, SUMMARY, read_summary, recipe_differences

    if len(spec.folders()) > 1 or not (spec.out / RECIPE).is_file():
        return
    if (spec.out / SUMMARY).is_file() and (status := read_summary(spec.out)["status"]) != "interrupted":
        raise ConfigError(f"{spec.out}: holds a run that is {status}; choose another --out")
    if differences := recipe_differences((spec.out / RECIPE).read_text("utf-8"), to_toml(recipe), MAY_CHANGE):
        raise ConfigError(
            f"{spec.out}: holds an unfinished run with other settings ({'; '.join(differences)}); choose another --out"
        )


def doctor(
    name: Annotated[str | None, typer.Argument(metavar="[RECIPE]", help="The recipe that is to run.")] = None,
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
    recipe, problem = None, None
    with guard(launch):
        try:
            recipe = load_recipe(name, set_ or []) if name else None
        except HpcfedError as e:
            problem = str(e)
        setting = recipe.mesh.transport if recipe else "auto"
        remark = check_launch(launch, setting)
        if remark and launch.local_rank == 0:
            print(f"note: {remark}", file=sys.stderr, flush=True)
        try:
            transport = choose(launch, setting)
        except (TransportError, ConfigError) as e:
            raise TransportError(explain(launch, e, setting)) from None
    with guard(transport):
        agree(transport, problem)
        wrong = _examine(launch, transport, recipe, out)
    if wrong:
        raise SystemExit(1)


def _examine(launch: Launch, transport: Transport, recipe: Recipe | None, out: Path | None) -> list[str]:
    """Collective over all ranks: what is wrong, which rank 0 prints with all the rest."""
    from ..cluster.doctor import by_node, examine, facts, notes, report, within_rows
    from ..cluster.host import look_around
    from ..transport.base import together
    from ..transport.choose import spread

    own_facts = together(transport, lambda: facts(launch, transport, recipe))
    ranks, done, wrong = examine(transport, own_facts, out)
    own_notes = notes(launch, own_facts) + (look_around() if launch.local_rank == 0 else [])
    remarks = by_node(transport, [one["node"] for one in ranks], own_notes)
    if recipe and recipe.mesh.shards > 1:
        transport = spread(transport, launch, recipe.mesh.shards)
        line, apart = within_rows(transport)
        done, wrong = [*done, line], wrong + apart
    if transport.rank == 0:
        print("\n".join(report(ranks, done, launch.launcher)))
        print("".join(f"note: {text}\n" for text in remarks), end="")
        print("\n".join(f"wrong: {text}" for text in wrong) or "nothing is wrong", flush=True)
    transport.close()
    return wrong


def plan(
    name: Annotated[str, typer.Argument(metavar="RECIPE", help="A shipped recipe (digits, ...) or a TOML file.")],
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

    recipe = load_recipe(name, set_ or [])
    limit = parse_bytes("--gpu-memory", memory) if memory else None
    speed = speed_of(recipe, limit is not None, tflops, draws)
    made = make_plan(recipe, tokens, "cpu" if limit is None else "cuda")
    shapes = made.shapes(nodes, per_node, limit, speed)
    plan_table(made, shapes, speed.what, limit)
    check_shapes(recipe, shapes, limit)
