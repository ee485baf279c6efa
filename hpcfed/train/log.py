"""What a run says of itself on the way and in the end: lines of metrics.jsonl, summary.json.

Promise  a private run tells nothing that depends on a client but the votes that were made private, and how long it took
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..clock import PARTS, SHARES, shares
from ..messages import Outcome
from ..runs import agreement
from ..tasks.evaluate import Score
from .round import State
from .run import Run

BLOCK = 1024  # rounds whose times are gathered at once: 32 kB a row


def log_round(run: Run, state: State, outcome: Outcome, last: bool, silent: Sequence[int] = ()) -> None:
    """A line of metrics.jsonl for every log_every-th round and the last, and the progress bar.

    silent: clients of which it is new that they abstain; such a round has a line, too.
    """
    tell = run.privacy.may_tell
    record: dict[str, Any] = {"t": state.t, "loss": outcome.loss if tell else float("nan")}
    if tell:
        record |= {"abstained": outcome.abstained, "abstentions": state.abstentions}
        record |= {"abstainers": list(silent)} if silent else {}
        record |= {"zeros": outcome.zeros} if outcome.slopes else {}
        record |= {"skipped": outcome.skipped} if outcome.skipped else {}
    if outcome.sums is not None and outcome.cast is not None:
        record |= {"agreement": agreement.agreement(outcome.sums, outcome.cast), "sums": outcome.sums.tolist()}
        if tell:  # noise of the mechanism is no sign error
            state.pairs.append(agreement.pairs(outcome.sums, outcome.cast))
            record |= {"pairs": state.pairs[-1], "sign_error": agreement.sign_error(list(state.pairs))}
    record |= {
        "uplink_bits_per_client": run.bits[0],
        "downlink_bits_per_client": run.bits[1],
        "payload_bytes": outcome.payload_bytes,
        "collectives": outcome.collectives,
        "wire_payload_bytes": state.payload_bytes,
        "seconds": round(state.seconds, 4),
    }
    if tell:  # how long row 0 takes says how much its clients hold
        record["time"] = {part: round(spent, 7) for part, spent in zip(PARTS, run.clock.last, strict=True)}
    for note in run.take_notes():
        run.record.note(note)
    run.record.round(record, due=last or bool(silent) or state.t % run.recipe.log_every == 0)


def log_scores(run: Run, state: State) -> None:
    """A line of metrics.jsonl for every split that was evaluated where the run stands."""
    for split, score in state.scores[state.t].items():
        run.record.score({"t": state.t, "split": split} | _told(run, score).data())


def _told(run: Run, score: Score) -> Score:
    """What may be told of it: the owner of an evaluated example may be a client, so a private run tells no owner's."""
    return score if run.privacy.may_tell else replace(score, worst=None, spread=None)


def tell_times(run: Run, state: State) -> None:
    """Collective: a line of metrics.jsonl with the mean time of a round since the last such line, over all rows.

    A private run tells nothing: how long a row takes says how much its clients hold.
    Traffic: 32 bytes a round and row, BLOCK rounds at a time.
    """
    times = run.clock.take()
    if not run.privacy.may_tell:
        return
    total = np.zeros((run.mesh.rows, len(SHARES)))
    for low in range(0, len(times), BLOCK):
        everyone = run.transport.all_gather(times[low : low + BLOCK].tobytes())
        total += shares(np.stack([np.frombuffer(raw, np.float64).reshape(-1, times.shape[1]) for raw in everyone]))
    if len(times):
        mean = dict(zip(SHARES, np.round(total.mean(0) / len(times), 7).tolist(), strict=True))
        slowest = int(total[:, SHARES.index("waiting")].argmin())
        run.record.log({"t": state.t, "timed": len(times), "rows": run.mesh.rows, "slowest_row": slowest, "time": mean})


def summary_of(run: Run, state: State, status: str, kept: int | None = None) -> dict[str, Any]:
    """What summary.json says of the run's settings and results.  kept: the round that is the result, with keep_best."""
    recipe, task, tell = run.recipe, run.problem.task, run.privacy.may_tell
    # Of an interrupted run the last known one after the base model's, since the time may be short.
    at = max((t for t, scores in state.scores.items() if scores and (t > 0 or state.t == 0)), default=None)
    at = at if kept is None else kept
    after = {} if at is None else state.scores[at]
    before = state.scores.get(0, {})
    first = next(iter(task.splits), None)
    was, is_now = (_told(run, of[first]) if first in of else None for of in (before, after))
    up, down = run.bits
    return {
        "status": status,
        "algorithm": run.header.algorithm,
        "model": run.header.base_model,
        "task": recipe.task.name,
        "rounds": state.t,
        "kept_round": kept,
        "clients": len(run.pool.parts),
        "rows": run.mesh.rows,
        "shards": run.mesh.shards,
        "metric_name": task.metric,
        "split": first,
        "metric_before": was.value if was else None,
        "metric_after": is_now.value if is_now else None,
        "loss_before": was.loss if was else None,
        "loss_after": is_now.loss if is_now else None,
        "metrics_before": dict(was.values) if was else {},
        "metrics_after": dict(is_now.values) if is_now else {},
        "majority": is_now.majority if is_now else None,
        "worst_before": was.worst if was else None,
        "worst_after": is_now.worst if is_now else None,
        "spread_before": was.spread if was else None,
        "spread_after": is_now.spread if is_now else None,
        "scored_at": at,
        "splits": {
            split: {"before": before[split].value if split in before else None, "after": after[split].value}
            for split in after
        },
        "uplink_bits_per_client_round": up,
        "downlink_bits_per_client_round": down,
        "wire_payload_bytes": state.payload_bytes,
        "fingerprint_base": run.header.base_fingerprint,
        "seconds": state.seconds,
        "seconds_per_round": state.seconds / state.t if state.t else None,
        "transport": run.transport.name,
        "device": run.row.device,
        "probe": run.probe_mode,
        "abstentions": state.abstentions if tell else None,
        "abstainers": sorted(state.abstainers) if tell else None,
        "attack": {"kind": recipe.attack.kind, "clients": sorted(run.attack.attackers)},
        "privacy": run.privacy.summary(),
    }
