"""The hpcfed command: the same line under python, torchrun, mpirun and srun. Heavy imports wait till needed."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import __version__
from ..errors import ConfigError, HpcfedError
from ..transport.launch import Launch, discover
from . import cluster as cli_cluster
from .options import Overrides, Quiet, RecipeName
from .orbit import orbit_app

if TYPE_CHECKING:
    from ..config import Recipe
    from ..transport.base import Transport

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
) -> None:
    """Fine-tune a model by voting: run all rounds of RECIPE."""
    from ..config import load_recipe
    from ..train.start import run_recipe
    from ..transport.guard import guard

    # Slurm may ask for the end while torch still loads: the signal waits until train() listens, else it kills the rank.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    launch = discover()
    wanted, transport = _meet(launch, lambda: load_recipe(recipe, set_ or []))
    with guard(transport):
        folder = out or Path("runs") / Path(recipe).stem
        if transport.rank == 0 and not quiet:
            print(f"loading {wanted.model.name} and the data of {wanted.task.name}", file=sys.stderr, flush=True)
        summary = run_recipe(wanted, transport, launch, folder, resume, force, quiet)
        if transport.rank == 0 and not quiet:
            from .tables import summary_table

            summary_table(summary)
            going_on = "; go on with --resume" if summary["status"] == "interrupted" else ""
            print(f"run folder: {folder}{going_on}")
    transport.close()


def _meet(launch: Launch, load: Callable[[], Recipe]) -> tuple[Recipe, Transport]:
    """Collective: the recipe, and the transport it asks for; what is wrong with the recipe is said once, by row 0."""
    from ..transport.base import agree
    from ..transport.choose import choose, spread
    from ..transport.guard import guard

    wanted, problem = None, None
    with guard(launch):
        try:
            wanted = load()
        except HpcfedError as e:
            problem = str(e)
        transport = choose(launch, *((wanted.mesh.transport, wanted.mesh.device) if wanted else ()))
    with guard(transport):
        agree(transport, problem)
        assert wanted
        transport = spread(transport, launch, wanted.mesh.shards, wanted.mesh.device)
    return wanted, transport


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
) -> None:
    """Evaluate the base model of a recipe, the model that a run or an orbit rebuilds, or a model folder."""
    from ..transport.guard import guard

    wanted, transport = _meet(discover(), lambda: _recipe_to_evaluate(recipe, like, set_ or []))
    orbit = orbit or (Path(recipe) if _is_run(recipe) else None)
    with guard(transport):
        from ..orbit import load_any
        from ..tasks.evaluate import evaluate as score
        from ..train.problem import Problem, build_problem
        from ..train.replay import check_base, replay
        from ..transport.base import together
        from ..weights.checkpoint import load_weights
        from .tables import score_table

        def rebuild() -> Problem:
            problem = build_problem(wanted, transport.inside)
            if orbit and (orbit / "weights.safetensors").is_file():  # of a method without an orbit
                if transport.inside.shards > 1:
                    raise ConfigError(f"mesh.shards={transport.inside.shards}: saved weights are read whole; use 1")
                load_weights(orbit / "weights.safetensors", problem.weights)
                return problem
            if orbit:
                found = load_any(orbit)
                check_base(found.header, problem.weights, wanted.model.dtype)
                replay(found.header, found.payloads, problem.weights)
            return problem

        problem = together(transport, rebuild)
        scores = {
            split: score(problem.forward, problem.task, examples, wanted.eval_batch, transport)
            for split, examples in problem.task.splits.items()
        }
        if transport.rank == 0:
            score_table(problem.task.metric, scores)
    transport.close()


def _is_run(name: str) -> bool:
    return (Path(name) / "recipe.toml").is_file()


def _recipe_to_evaluate(name: str, like: str | None, overrides: list[str]) -> Recipe:
    """The recipe that gives model and task."""
    from ..config import load_recipe

    if _is_run(name):
        return load_recipe(str(Path(name) / "recipe.toml"), overrides)
    if (Path(name) / "config.json").is_file():
        if like is None:
            raise ConfigError(
                f"{name} is a model folder; give the task by a recipe: hpcfed evaluate {name} --recipe RECIPE"
            )
        return load_recipe(like, [*overrides, f"model.name={name}"])
    return load_recipe(name, overrides)


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
    for option, value, right, wanted in (
        ("--epsilon-per-round", epsilon, 1e-6 <= epsilon <= 50, "at least 1e-6, at most 50"),
        ("--rounds", rounds, 1 <= rounds <= 10**8, "from 1 to 100000000"),
        ("--sample-rate", rate, 1e-9 <= rate <= 1, "at least 1e-9, at most 1"),
        ("--delta", delta, 0 < delta < 1, "above 0, below 1"),
        ("--budget", budget, budget is None or 0 < budget < float("inf"), "above 0 and finite"),
    ):
        if not right:
            raise ConfigError(f"{option} {value}: must be {wanted}")
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
    try:
        app()
    except HpcfedError as e:
        print(f"hpcfed: {e}", file=sys.stderr)
        raise SystemExit(1) from None
