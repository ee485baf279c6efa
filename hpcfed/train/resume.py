"""A run is taken up where row 0 left it, or begun: rounds, weights, scores, seconds, bytes and votes."""

from __future__ import annotations

from ..clients import PartitionReport
from ..runs.record import Past
from ..tasks.evaluate import Score
from ..transport.base import together
from .round import State
from .run import Run


def resume(run: Run, state: State) -> None:
    """Bring every row to the end of what row 0 has on disk.

    Collective. Every row gets row 0's scores too: what is evaluated next depends on them.
    """
    splits, metric = run.problem.task.splits, run.problem.task.metric
    left = together(run.transport, lambda: run.record.open(run.open_trail, run.data, lambda: _holdings(run), splits))
    past = Past.from_json(run.transport.broadcast(left.to_json() if left else None))
    state.t, state.seconds, state.payload_bytes = past.rounds, past.seconds, past.payload_bytes
    state.scores = {t: {split: Score(*s, metric) for split, s in scores.items()} for t, scores in past.scores.items()}
    state.pairs.extend(past.pairs)
    run.catch_up(past.rounds, state)
    run.privacy.resumed(past.rounds, past.restarts)


def _holdings(run: Run) -> PartitionReport | None:
    """Which client holds how much of what; None in a private run, where that is each client's own affair."""
    task = run.problem.task
    return run.pool.report(task.train.labels, task.labels) if run.privacy.may_tell else None
