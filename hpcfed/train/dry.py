"""A dry run: all that comes before the first round, and two rounds whose result is thrown away. Nothing is written."""

from __future__ import annotations

import json
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..config import Recipe, load_recipe
from ..tasks.answers import answer_loss, cross_entropy_over
from ..tasks.base import cross_entropy
from ..tasks.shown import right_answer, shown
from .build import build_together
from .meet import meet
from .round import State
from .run import Run

ROUNDS = 2  # that are run: the first one takes longer
LOSSES: dict[Any, str] = {
    cross_entropy: "cross-entropy over the classes",
    cross_entropy_over: "cross-entropy over the candidates",
    answer_loss: "cross-entropy of the right answer's tokens, a mean an example",
}


def dry_run(recipe: Recipe | str | Path, overrides: Sequence[str] = ()) -> list[str]:
    """What a run of the recipe would be, in lines, on every rank; what `hpcfed train --dry-run` prints.

    Data and model are loaded, an example is shown as the model sees it, with the tokens that the loss reads in ⟦ ⟧, and
    ROUNDS rounds are run for their time and memory; of a private run none is, and no client's example is shown.
    Collective: every rank of the launch calls it alike.  Raises HpcfedError as train does.
    """
    with meet(lambda: recipe if isinstance(recipe, Recipe) else load_recipe(str(recipe), overrides)) as meeting:
        run = build_together(meeting.recipe, meeting.transport)
        return [*run.problem.notes, *_example(run), *_holdings(run), *_rounds(run)]


def _example(run: Run) -> list[str]:
    task = run.problem.task
    own = run.privacy.may_tell and run.recipe.clients.manifest is None
    examples = task.train if own else next(iter(task.splits.values()), None)
    if examples is None or not len(examples):
        return []
    name = "the first training example" if own else "the first evaluated example"
    tokens = [task.tokens(examples[i]) for i in range(len(examples))]
    texts = "input_ids" in examples[0]
    lengths = f", of {np.median(tokens):g} tokens (median; {max(tokens):,} the longest)" if texts else ""
    right = f"right: {right_answer(task, examples[0])}"
    trained = task.objective or LOSSES.get(task.form.loss, "a loss of the task's own")
    loss = f"trained on: {trained}; reported: {', '.join(task.metrics)}"
    return [f"{name}{lengths}:", *shown(task, run.problem.processor, examples[0]), right, loss]


def _holdings(run: Run) -> list[str]:
    """Who holds what."""
    return [run.pool.report(*run.problem.task.counted).line()] if run.privacy.may_tell else []


def _rounds(run: Run) -> list[str]:
    """Collective: what rounds take."""
    if not run.privacy.may_tell:
        return [
            "a private run: no round is tried out, since votes would be cast that no budget counts; see hpcfed plan"
        ]
    state, seconds = State(), 0.0
    for t in range(ROUNDS):
        with run.clock.round():
            run.round(t, state)
        seconds = run.clock.seconds
    peaks = run.transport.everyone(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024).encode())
    gpu = torch.cuda.max_memory_allocated() if run.row.device == "cuda" else 0
    gpus = run.transport.everyone(str(gpu).encode())
    told = json.loads(run.transport.broadcast(json.dumps(seconds).encode() if run.transport.rank == 0 else None))
    whole, memory = told * run.recipe.rounds, max(map(int, peaks)) / 1e9
    on_gpu = f", {max(map(int, gpus)) / 1e9:.3g} GB of a GPU" if max(map(int, gpus)) else ""
    return [
        f"a round took {told:.3g} s, so {run.recipe.rounds:,} take {whole / 60:.3g} min without evaluations",
        f"memory of a rank: {memory:.3g} GB{on_gpu}",
    ]
