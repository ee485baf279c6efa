"""A run is taken up where row 0 left it, or begun: rounds, weights, scores, seconds, bytes and votes."""

from __future__ import annotations

import json
from typing import Any

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
    splits, read = run.problem.task.splits, _read(run)
    left = together(
        run.transport,
        lambda: run.record.open(run.open_trail, run.data, run.digests, lambda: _holdings(run), splits, read),
    )
    past = Past.from_json(run.transport.broadcast(left.to_json() if left else None))
    state.t, state.seconds, state.payload_bytes = past.rounds, past.seconds, past.payload_bytes
    state.scores = {t: {split: Score(**s) for split, s in scores.items()} for t, scores in past.scores.items()}
    state.pairs.extend(past.pairs)
    state.abstentions, state.abstainers = past.abstentions, set(past.abstainers)
    run.catch_up(past.rounds, state)
    run.privacy.resumed(past.rounds, past.restarts)


def _holdings(run: Run) -> PartitionReport | None:
    """Which client holds how much of what; None in a private run, where that is each client's own affair."""
    task = run.problem.task
    return run.pool.report(*task.counted) if run.privacy.may_tell else None


def _read(run: Run) -> dict[str, Any]:
    """What was read, kept and left out of each split; in a private run not of what clients hold.

    Collective with clients.manifest, where rows read the files of different clients.
    """
    task = run.problem.task
    told = {split: r.data() for split, r in task.readings.items() if run.privacy.may_tell or split in task.splits}
    trained = [split for split in told if split not in task.splits]
    if run.recipe.clients.manifest is None or not trained:
        return told
    everyone = [json.loads(raw) for raw in run.transport.all_gather(json.dumps(told[trained[0]]).encode())]
    whole = {key: sum(one[key] for one in everyone) for key in ("files", "rows", "kept")}
    reasons = sorted({reason for one in everyone for reason in one["left_out"]})
    left_out = {reason: sum(one["left_out"].get(reason, 0) for one in everyone) for reason in reasons}
    return told | {trained[0]: whole | {"left_out": left_out}}
