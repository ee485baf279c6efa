"""keep_best: of the rounds that were evaluated, the one of the lowest loss on the split dev is the run's result.

No weights are saved on the way: those of the kept round are the base model's, loaded again and moved by the decisions
up to it. The journal keeps all rounds, so that the run can go on from the last one.

Promise  the result follows from metrics.jsonl and the journal alone, so it is the same after a kill
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..config import load_method
from ..errors import ConfigError
from ..tasks import Task
from ..tasks.build import DEV
from ..tasks.evaluate import Score
from ..transport.base import together
from ..transport.row import Row
from ..weights import Weights
from .problem import build_base
from .replay import check_base, replay_into
from .round import State
from .run import OrbitRun, Run


def check_dev(task: Task) -> None:
    """ConfigError unless the task has a split to choose by."""
    if DEV not in task.splits:
        found = ", ".join(task.splits) or "none"
        raise ConfigError(
            f"keep_best=true: no split {DEV} is evaluated ({found}); set task.dev to the number of training examples "
            f'for it, or name a split of your own: task.eval_splits=["{DEV}", ...]'
        )


def best_round(scores: Mapping[int, Mapping[str, Score]]) -> int | None:
    """The round of the lowest loss on dev, of equals the earliest; None if no loss is finite.

    scores: rounds done -> split -> score.
    """
    losses = {t: scores[t][DEV].loss for t in sorted(scores) if math.isfinite(scores[t][DEV].loss)}
    return min(losses, key=losses.__getitem__, default=None)


def keep_best(run: Run, state: State) -> int:
    """Collective: the weights of every row are those of the best round from now on; which one that is."""
    assert isinstance(run, OrbitRun), "the recipe was checked"
    best = best_round(state.scores)  # the same on every row
    if best is None:
        run.record.note(f"keep_best: no loss on {DEV} is finite; the last round, {state.t:,}, is kept")
        return state.t
    if best != state.t:
        run.record.note(f"round {best:,} of {state.t:,} has the lowest loss on {DEV}: its model is rebuilt")
        _go_back(run, best)
    return best


def _go_back(run: OrbitRun, rounds: int) -> None:
    """Collective: moves cannot be undone bit for bit, so the base model is loaded again and moved anew."""
    model, size = run.recipe.model, run.header.round_bytes
    row = run.row if run.row.shards > 1 else Row(run.row.index)  # in main memory, where it can be

    def load() -> Weights:
        _, base = build_base(run.header, model.name, model.revision, model.pad_token, row)
        check_base(run.header, base, model.dtype)
        return base

    base = together(run.transport, load)
    for name, p in run.problem.weights.params.items():
        p.data.copy_(base.params[name].data)
    del base
    all_rounds = run.record.decisions()
    raw = run.transport.broadcast(None if all_rounds is None else all_rounds[: rounds * size])
    decisions = [raw[i : i + size] for i in range(0, len(raw), size)]
    replay_into(run.header, decisions, run.problem.weights, load_method(run.recipe.algorithm.name))
