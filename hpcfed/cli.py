"""The hpcfed command: the same line under python, torchrun, mpirun and srun. Heavy imports wait till needed."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import __version__, cli_cluster
from .env import Launch, describe, discover
from .errors import ConfigError, HpcfedError

if TYPE_CHECKING:
    from .config import Recipe
    from .transport import Row, Transport

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Federated zeroth-order fine-tuning at one bit a round.\n\n"
    "Example: [bold]hpcfed train digits[/bold], or on two rows "
    "[bold]torchrun --standalone --nproc-per-node 2 -m hpcfed train digits[/bold]",
)
orbit_app = typer.Typer(
    no_args_is_help=True,
    help="Show, verify and replay orbits: the files that rebuild a model.",
    epilog="Example: hpcfed orbit show runs/digits",
)
app.add_typer(orbit_app, name="orbit")

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, e.g. --set algorithm.lr=1e-4."),
]
RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="A shipped recipe (digits, ...) or a TOML file.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")]


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
    from .config import load_recipe
    from .transport import guard

    # Slurm may ask for the end while torch still loads: the signal waits until train() listens, else it kills the rank.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    launch = discover()
    wanted, transport = _meet(launch, lambda: load_recipe(recipe, set_ or []))
    with guard(transport):
        folder = out or Path("runs") / Path(recipe).stem
        if transport.rank == 0 and not quiet:
            print(f"loading {wanted.model.name} and the data of {wanted.task.name}", file=sys.stderr, flush=True)
        summary = _train(wanted, transport, launch, folder, resume, force, quiet)
        if transport.rank == 0 and not quiet:
            from .display import summary_table

            summary_table(summary)
            going_on = "; go on with --resume" if summary["status"] == "interrupted" else ""
            print(f"run folder: {folder}{going_on}")
    transport.close()


def _meet(launch: Launch, load: Callable[[], Recipe]) -> tuple[Recipe, Transport]:
    """Collective: the recipe, and the transport it asks for; what is wrong with the recipe is said once, by row 0."""
    from .transport import agree, choose, guard, spread

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


def _train(
    recipe: Recipe, transport: Transport, launch: Launch, out: Path, resume: bool, force: bool, quiet: bool
) -> dict[str, Any]:
    """One rank's part of a training run: enter the run folder (row 0), build, train."""
    from .config import to_toml
    from .elastic import earlier_attempts, note_begun
    from .keeper import Keeper, build_together, together
    from .runlog import MAY_CHANGE, RunFolder
    from .train import train

    def enter() -> RunFolder | None:
        if transport.rank:
            return None
        entered = RunFolder.create(out, to_toml(recipe), describe(launch), force, resume, MAY_CHANGE)
        note_begun(launch, out)
        if earlier.begun:
            entered.notes.append(f"{launch.launcher} started the ranks anew: going on with the run in {out}")
        return entered

    earlier = earlier_attempts(transport, launch, out)
    if earlier.summary:  # a rank died on its way out
        return earlier.summary
    force, resume = force and not earlier.begun, resume or earlier.begun
    # --force moves the old run aside only when the new one can start: a wrong setting must not cost a run.
    folder = None if force else together(transport, enter)
    try:
        run = build_together(recipe, transport)
        folder = together(transport, enter) if force else folder
        return train(run, Keeper(folder, quiet) if folder else None)
    finally:
        if folder:
            folder.close()


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
    from .transport import guard

    wanted, transport = _meet(discover(), lambda: _recipe_to_evaluate(recipe, like, set_ or []))
    orbit = orbit or (Path(recipe) if _is_run(recipe) else None)
    with guard(transport):
        from .build import Problem, build_problem
        from .dense import load_weights
        from .display import score_table
        from .evaluate import evaluate as score
        from .keeper import together
        from .orbit import load_any
        from .replay import check_base, replay

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
    from .config import load_recipe

    if _is_run(name):
        return load_recipe(str(Path(name) / "recipe.toml"), overrides)
    if (Path(name) / "config.json").is_file():
        if like is None:
            raise ConfigError(
                f"{name} is a model folder; give the task by a recipe: hpcfed evaluate {name} --recipe RECIPE"
            )
        return load_recipe(like, [*overrides, f"model.name={name}"])
    return load_recipe(name, overrides)


Revision = Annotated[str | None, typer.Option(help="The base model's revision on the hub, as model.revision.")]
PadToken = Annotated[str | None, typer.Option(help="The token to pad with, as model.pad_token.")]
OrbitFile = Annotated[Path, typer.Argument(metavar="FILE", help="A sealed orbit, a journal, or a run folder.")]


@orbit_app.command("show", epilog="Example: hpcfed orbit show runs/digits/orbit.safetensors")
def orbit_show(file: OrbitFile) -> None:
    """Print what an orbit says about itself."""
    from .display import orbit_table
    from .orbit import load_any

    orbit_table(load_any(file))


@orbit_app.command("verify", epilog="Example: hpcfed orbit verify runs/digits --base digits-vit")
def orbit_verify(
    file: OrbitFile,
    base: Annotated[
        str | None, typer.Option(help="Base model (folder or hub name): replay and compare fingerprints.")
    ] = None,
    revision: Revision = None,
    pad_token: PadToken = None,
) -> None:
    """Check an orbit's bytes; with --base, that it rebuilds exactly the model the run ended with."""
    from .orbit import load_any

    found = load_any(file)
    for note in found.notes if discover().rank == 0 else ():
        print(note)
    if discover().rank == 0:
        print(f"{file}: intact, {found.rounds} rounds of {found.header.algorithm}")
    if base is None:
        return
    with _one_row() as row:
        _, weights = _replayed(found, base, None, revision, pad_token, row)
        fingerprint = weights.fingerprint()
        if found.fingerprint not in (None, fingerprint):
            raise HpcfedError(f"{file}: replay gives fingerprint {fingerprint}, the run ended with {found.fingerprint}")
        if row.shard == 0 and found.fingerprint is None:
            print(f"replayed to {fingerprint}; a journal holds no final fingerprint to compare with")
        elif row.shard == 0:
            print(f"replay gives fingerprint {fingerprint}, as the run did")


@orbit_app.command(
    "replay", epilog="Example: hpcfed orbit replay runs/digits --base digits-vit --out tuned --rounds 500"
)
def orbit_replay(
    file: OrbitFile,
    base: Annotated[str, typer.Option(help="Base model: folder or hub name.")],
    out: Annotated[Path, typer.Option(help="Folder to write the model to; transformers' from_pretrained loads it.")],
    rounds: Annotated[int | None, typer.Option(min=0, help="Stop after this many rounds; default all.")] = None,
    revision: Revision = None,
    pad_token: PadToken = None,
) -> None:
    """Rebuild the fine-tuned model from its base model and an orbit."""
    from .model import save_shards
    from .orbit import load_any

    with _one_row() as row:
        if row.any(out.exists() and (not out.is_dir() or any(out.iterdir()))):
            raise ConfigError(f"--out {out}: is there already and not empty; nothing was written")
        found = load_any(file)
        model, weights = _replayed(found, base, rounds, revision, pad_token, row)
        fingerprint = weights.fingerprint()
        if found.fingerprint not in (None, fingerprint) and rounds in (None, found.rounds):
            raise HpcfedError(f"{file}: replay gives fingerprint {fingerprint}, the run ended with {found.fingerprint}")
        save_shards(model, weights.slices, row, base, out)
        if row.shard == 0:
            print(
                f"{out}: {found.header.base_model} after {found.rounds if rounds is None else rounds} rounds, "
                f"fingerprint {fingerprint}"
            )


@contextmanager
def _one_row() -> Iterator[Row]:
    """Collective: all ranks of the launch as the shards of one row; what goes wrong on one ends all."""
    from .transport import choose, guard, spread

    launch = discover()
    with guard(launch):
        transport = choose(launch)
    with guard(transport):
        transport = spread(transport, launch, launch.size)
    with guard(transport):
        yield transport.inside
    transport.close()


def _replayed(orbit: Any, base: str, rounds: int | None, revision: str | None, pad_token: str | None, row: Row) -> Any:
    from .build import build_base
    from .replay import check_base, replay

    if rounds is not None and rounds > orbit.rounds:
        raise ConfigError(f"--rounds {rounds}: the orbit has only {orbit.rounds} rounds")
    model, weights = build_base(orbit.header, base, revision, pad_token, row)
    check_base(orbit.header, weights, orbit.header.dtype)
    replay(orbit.header, orbit.payloads[:rounds], weights)
    return model, weights


@app.command(epilog="Example: hpcfed compare runs/a runs/b")
def compare(runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders.")]) -> None:
    """One table of several runs: metric, bits, bytes, seconds, memory."""
    from .display import comparison_table
    from .runlog import comparison

    comparison_table(comparison(runs))


@app.command(epilog="Example: hpcfed plot runs/a runs/b --out curves.png")
def plot(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders.")],
    out: Annotated[Path, typer.Option(help="PNG file to write.")] = Path("hpcfed.png"),
) -> None:
    """Draw loss and accuracy against rounds and bits, who held what; of a scaling study speed and efficiency."""
    from .plots import draw

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
    from .display import privacy_table
    from .privacy import forecast

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
