"""The public way to a score: `evaluate` meets, rebuilds the model that is asked for, and evaluates every split."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..atomic import write_atomic
from ..config import Recipe, load_method, load_recipe
from ..errors import ConfigError
from ..orbit import load_any
from ..orbit.sealed import WEIGHTS
from ..runs.read import RECIPE, paths_of
from ..tasks.evaluate import Result, Score, answers, score_of
from ..transport.base import together
from ..transport.launch import discover
from ..transport.row import Row
from ..weights.checkpoint import load_weights, read_facts
from .digests import changes, digests
from .meet import Meeting, meet
from .problem import Problem, build_problem
from .replay import check_base, replay_into

NOTHING = 'task.eval_splits=[]: there is nothing to evaluate; name splits: --set task.eval_splits=["SPLIT"]'


def evaluate(
    what: Recipe | str | Path,
    *,
    orbit: str | Path | None = None,
    recipe: str | Path | None = None,
    overrides: Sequence[str] = (),
    quiet: bool = False,
    predictions: str | Path | None = None,
) -> dict[str, Score]:
    """The scores of a model on every split that its recipe evaluates; what `hpcfed evaluate` prints.

    what: a recipe, by name, file or as load_recipe gives it: its base model; a run folder: the model that the run has
    come to; or a model folder, for which `recipe` gives the task.  orbit: a sealed orbit, a journal or a run folder
    that is replayed on the base model first.  overrides: as load_recipe.  quiet: nothing on stderr.
    predictions: new file for what the model answers, a line of JSON an example, which rank 0 writes in the end:
    split, index (from 0), prediction, references, right (is it, to the word), loss, metrics (of the example).

    What the user should know of data and model goes to stderr, on rank 0.
    Collective: every rank of the launch calls it alike.  Raises HpcfedError (alone; on several ranks see meet.py).
    """

    def check(meeting: Meeting) -> None:
        if meeting.recipe.task.eval_splits == []:
            raise meeting.transport.everywhere(ConfigError(NOTHING))
        together(meeting.transport, lambda: _check_new(predictions, meeting.transport.rank))

    with rebuilt(what, orbit, recipe, overrides, quiet, check) as (meeting, problem):
        resolved, transport = meeting.recipe, meeting.transport
        task, scores, lines = problem.task, dict[str, Score](), list[str]()
        for split, examples in task.splits.items():
            found = answers(problem.forward, task, examples, resolved.eval_batch, transport, generate=problem.generate)
            assert found is not None, "nobody asks it to stop"
            scores[split] = score_of(task, examples, found)
            lines += [_line(split, one) for one in found if predictions is not None and transport.rank == 0]
        together(transport, lambda: _write_new(predictions, lines, transport.rank))
        return scores


@contextmanager
def rebuilt(
    what: Recipe | str | Path,
    orbit: str | Path | None,
    recipe: str | Path | None,
    overrides: Sequence[str],
    quiet: bool,
    check: Callable[[Meeting], None],
) -> Iterator[tuple[Meeting, Problem]]:
    """Collective: the ranks meet and hold the model that is asked for, as `evaluate` says.

    check: what must be right before the model is loaded, collective.
    """
    run = Path(orbit) if orbit else Path(what) if isinstance(what, str | Path) and _is_run(what) else None
    with meet(lambda: what if isinstance(what, Recipe) else _recipe(what, recipe, overrides)) as meeting:
        resolved, transport = meeting.recipe, meeting.transport
        check(meeting)
        problem = together(transport, lambda: _rebuilt(resolved, run, transport.row))
        for note in problem.notes if transport.rank == 0 and not quiet else ():
            print(note, file=sys.stderr, flush=True)
        if isinstance(what, str | Path) and _is_run(what) and not overrides and transport.rank == 0 and not quiet:
            for one in changes(Path(what), digests(resolved, problem)):
                note = f"{one} changed since the run in {what} began: its own scores are not of the same"
                print(note, file=sys.stderr, flush=True)
        yield meeting, problem


def _check_new(file: str | Path | None, rank: int) -> None:
    """ConfigError on rank 0 if the file cannot be made, or is there."""
    if file is None or rank:
        return
    if Path(file).exists() or Path(file).is_symlink():
        raise ConfigError(f"--predictions {file}: it is there already; choose another name")
    if not Path(file).parent.is_dir():
        raise ConfigError(f"--predictions {file}: there is no folder {Path(file).parent}")
    if not os.access(Path(file).parent, os.W_OK):
        raise ConfigError(f"--predictions {file}: cannot write to the folder {Path(file).parent}")


def _write_new(file: str | Path | None, lines: Sequence[str], rank: int) -> None:
    _check_new(file, rank)
    if file is None or rank:
        return
    try:
        write_atomic(Path(file), "".join(lines))
    except OSError as error:
        raise ConfigError(f"--predictions {file}: cannot write it: {error.strerror}") from None


def _line(split: str, result: Result) -> str:
    """A line of the predictions."""
    answer = result.answered
    told = {
        "split": split,
        "index": result.index,
        "prediction": answer.text,
        "references": answer.references,
        "right": answer.text in answer.references if answer.chosen is None else answer.chosen in answer.right,
        "loss": result.loss if math.isfinite(result.loss) else None,
        "metrics": result.values,
    }
    return json.dumps(told, ensure_ascii=False) + "\n"


def _rebuilt(recipe: Recipe, orbit: Path | None, row: Row) -> Problem:
    """Collective over the row: the recipe's problem, with the weights that the orbit or the run rebuilds."""
    problem = build_problem(recipe, row)
    if orbit and (orbit / WEIGHTS).is_file():  # of a method without an orbit
        if row.shards > 1:
            raise ConfigError(f"mesh.shards={row.shards}: saved weights are read whole; use 1")
        problem.weights.follow(read_facts(orbit / WEIGHTS).layout_hash)
        load_weights(orbit / WEIGHTS, problem.weights)
    elif orbit:
        saved = load_any(orbit)
        problem.weights.follow(saved.header.layout_hash)
        check_base(saved.header, problem.weights, recipe.model.dtype)
        method = load_method(recipe.algorithm.name)
        own = method if method.name == saved.header.algorithm else None  # the recipe's may be another than the orbit's
        replay_into(saved.header, saved.decisions, problem.weights, own)
    return problem


def _is_run(name: str | Path) -> bool:
    return (Path(name) / RECIPE).is_file()


def _recipe(what: str | Path, like: str | Path | None, overrides: Sequence[str]) -> Recipe:
    """The recipe that gives model and task."""
    if _is_run(what):
        paths, notes = paths_of(what)
        if discover().rank == 0:
            for note in notes:
                print(f"note: {note}", file=sys.stderr, flush=True)
        return load_recipe(str(Path(what) / RECIPE), [*paths, *overrides])
    if (Path(what) / "config.json").is_file():
        if like is None:
            raise ConfigError(
                f"{what} is a model folder; give the task by a recipe: hpcfed evaluate {what} --recipe RECIPE"
            )
        return load_recipe(str(like), [*overrides, f"model.name={what}"])
    return load_recipe(str(what), overrides)
