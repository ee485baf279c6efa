"""The hpcfed command: the same line under python, torchrun, mpirun and srun. Heavy imports wait till needed."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from .. import __version__
from ..errors import ConfigError
from . import cluster as cli_cluster
from . import output
from .options import Overrides, Quiet, RecipeName
from .orbit import orbit_app

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Federated zeroth-order fine-tuning at one bit a round.\n\n"
    "Example: [bold]hpcfed train digits[/bold], or on two rows "
    "[bold]torchrun --standalone --nproc-per-node 2 -m hpcfed train digits[/bold]",
)
app.add_typer(orbit_app, name="orbit")


@app.command(epilog="Example: hpcfed train digits --out runs/first --set rounds=300 --set clients.count=20")
def train(
    recipe: RecipeName,
    out: Annotated[Path | None, typer.Option(help="Run folder; default runs/RECIPE.")] = None,
    set_: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run in the folder.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Start over; an old run there is moved aside.")] = False,
    quiet: Quiet = False,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="Show an example, who holds what, memory and time; write nothing.")
    ] = False,
) -> None:
    """Fine-tune a model by voting: run all rounds of RECIPE."""
    # Slurm may ask for the end while torch still loads: the signal waits until the run listens, else it kills the rank.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    from ..train.start import train as run
    from ..transport.launch import discover

    if dry:
        from ..train.dry import dry_run

        lines = dry_run(recipe, set_ or [])
        print("\n".join(lines) if discover().rank == 0 else "", end="\n" * (discover().rank == 0))
        return
    folder = out or Path("runs") / Path(recipe).stem
    result = run(recipe, folder, overrides=set_ or [], resume=resume, force=force, quiet=quiet)
    if discover().rank == 0 and not quiet:
        from .tables import summary_table

        summary_table(result.summary)
        going_on = "; go on with --resume" if result.summary["status"] == "interrupted" else ""
        print(f"run folder: {folder}{going_on}")
        if why := output.lost():
            print(f"hpcfed: stdout: {why}; the run is saved in {folder}", file=sys.stderr)


@app.command(epilog="Example: hpcfed evaluate digits --orbit runs/digits/orbit.safetensors")
def evaluate(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE|MODEL", help="A recipe, a run folder, or a model folder (with --recipe).")
    ],
    orbit: Annotated[Path | None, typer.Option(help="Orbit or journal to replay before evaluating.")] = None,
    like: Annotated[
        str | None, typer.Option("--recipe", help="The recipe that gives the task, when MODEL is a model.")
    ] = None,
    set_: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object: the score of each split.")] = False,
    predictions: Annotated[
        Path | None, typer.Option(help="New file for the model's answers, a line of JSON an example.")
    ] = None,
    lm_eval: Annotated[
        str | None,
        typer.Option("--lm-eval", metavar="TASK,...", help="Score by tasks of lm_eval, or yaml files, instead."),
    ] = None,
    shots: Annotated[int | None, typer.Option("--num-fewshot", help="Solved examples before each question.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="First examples of each task of --lm-eval.")] = None,
) -> None:
    """Evaluate the base model of a recipe, the model that a run or an orbit rebuilds, or a model folder."""
    from ..train.score import evaluate as score
    from ..transport.launch import discover
    from .tables import harness_table, score_json, score_table

    if lm_eval is not None:
        if predictions:
            raise ConfigError("--predictions: the answers are of the recipe's splits; leave it out, or --lm-eval")
        from ..train.harness import harness

        told = harness(recipe, lm_eval, orbit=orbit, recipe=like, overrides=set_ or [], shots=shots, limit=limit)
        if discover().rank == 0:
            print(json.dumps(told, allow_nan=False)) if as_json else harness_table(told)
        return
    for option, value in (("--num-fewshot", shots), ("--limit", limit)):
        if value is not None:
            raise ConfigError(f"{option} {value}: it is for tasks of --lm-eval; the recipe's are set by task.*")
    scores = score(recipe, orbit=orbit, recipe=like, overrides=set_ or [], predictions=predictions)
    if discover().rank == 0:
        print(score_json(scores)) if as_json else score_table(scores)


@app.command(epilog="Example: hpcfed export runs/digits --out tuned")
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, of any method.")],
    out: Annotated[Path, typer.Option(help="New folder to write the model to; transformers' pipelines load it.")],
    base: Annotated[
        str | None, typer.Option(help="The base model's folder or hub name, if not where the recipe says.")
    ] = None,
) -> None:
    """Write the model that a run has come to, with all that transformers needs to use it."""
    from ..train.export import export as write
    from ..transport.launch import discover

    done = write(run, out, base=base)
    if discover().rank == 0:
        print("\n".join([*done.notes, f"{out}: {run} after {done.rounds} rounds, fingerprint {done.fingerprint}"]))


@app.command(epilog="Example: hpcfed compare runs/a runs/b")
def compare(runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders.")]) -> None:
    """One table of several runs: metric, bits, bytes, seconds, memory."""
    from ..runs.read import comparison
    from .tables import comparison_table

    comparison_table(comparison(runs))


@app.command(epilog="Example: hpcfed plot runs/a runs/b --out curves.png")
def plot(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders.")],
    out: Annotated[Path, typer.Option(help="PNG file to write.")] = Path("hpcfed.png"),
) -> None:
    """Draw loss and accuracy against rounds and bits, who held what; of a scaling study speed and efficiency."""
    from ..runs.plots import draw

    draw(runs, out)
    print(out)


@app.command(epilog="Example: hpcfed privacy --epsilon-per-round 0.1 --rounds 5000 --sample-rate 0.05 --budget 5")
def privacy(
    epsilon: Annotated[
        float,
        typer.Option("--epsilon-per-round", help="privacy.epsilon, times algorithm.directions if there are several."),
    ],
    rounds: Annotated[int, typer.Option(help="Rounds of the run.")],
    rate: Annotated[
        float, typer.Option("--sample-rate", help="Share of the clients in a round: clients.per_round / clients.count.")
    ] = 1.0,
    delta: Annotated[
        float, typer.Option(help="privacy.delta, the chance that the total fails; well below 1 / clients.")
    ] = 1e-5,
    budget: Annotated[float | None, typer.Option(help="Say how many rounds this total epsilon is enough for.")] = None,
) -> None:
    """What differential privacy will cost a client over a whole run."""
    for option, value, right, valid in (
        ("--epsilon-per-round", epsilon, 1e-6 <= epsilon <= 50, "at least 1e-6, at most 50"),
        ("--rounds", rounds, 1 <= rounds <= 10**8, "from 1 to 100000000"),
        ("--sample-rate", rate, 1e-9 <= rate <= 1, "at least 1e-9, at most 1"),
        ("--delta", delta, 0 < delta < 1, "above 0, below 1"),
        ("--budget", budget, budget is None or 0 < budget < float("inf"), "above 0 and finite"),
    ):
        if not right:
            raise ConfigError(f"{option} {value}: must be {valid}")
    from ..privacy import forecast
    from .tables import privacy_table

    privacy_table(forecast(epsilon, rounds, rate, delta, budget), rounds, rate, delta, budget)


app.command(
    epilog="Example: hpcfed submit digits --nodes 4 --time 01:00:00 --mpi pmix --wait; --dry-run shows the script"
)(cli_cluster.submit)


app.command(
    epilog="Example: srun --nodes 2 --ntasks-per-node 4 hpcfed doctor digits --out runs/digits; any other launcher too"
)(cli_cluster.doctor)


app.command(
    epilog="Example: hpcfed plan sst2-opt-125m --set model.name=FOLDER --nodes 4 --gpus-per-node 8 --gpu-memory 80GB"
)(cli_cluster.plan)


@app.command(epilog="Example: hpcfed version")
def version() -> None:
    """Print the version."""
    print(__version__)


def main() -> None:
    """Entry point: a user's mistake is one message and exit status 1, never a traceback."""
    output.make_safe()
    try:
        app()
    except SystemExit as end:
        if why := output.lost():
            print(f"hpcfed: stdout: {why}", file=sys.stderr)
            raise SystemExit(end.code or 1) from None
        raise
    except BaseException as error:  # of a rank that is alone: several ranks have said it, and ended
        from ..transport.guard import fail
        from ..transport.launch import Launch

        fail(Launch(), error)
