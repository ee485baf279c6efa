"""What a run says of itself on the way and in the end: lines of metrics.jsonl, summary.json.

Promise  a private run tells nothing that depends on a client but the votes that were made private, and how long it took
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..clock import PARTS, SHARES, shares
from ..messages import Outcome
from ..runs import agreement
from .round import State
from .run import Run

BLOCK = 1024  # rounds whose times are gathered at once: 32 kB a row


def log_round(run: Run, state: State, outcome: Outcome, last: bool) -> None:
    """A line of metrics.jsonl for every log_every-th round and the last, and the progress bar."""
    tell = run.privacy.may_tell
    record: dict[str, Any] = {"t": state.t, "loss": outcome.loss if tell else float("nan")}
    if tell:
        record["abstained"] = outcome.abstained
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
    run.record.round(record, due=last or state.t % run.recipe.log_every == 0)


def log_scores(run: Run, state: State) -> None:
    """A line of metrics.jsonl for every split that was evaluated where the run stands."""
    metric = run.problem.task.metric
    for split, score in state.scores[state.t].items():
        record = {"t": state.t, "split": split, "metric": metric, "value": score.value, "loss": score.loss}
        run.record.score(record | {"examples": score.examples})


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


def summary_of(run: Run, state: State) -> dict[str, Any]:
    """What summary.json says of the run's settings and results."""
    recipe, task = run.recipe, run.problem.task
    after = state.scores[max(state.scores)]  # interrupted: the last known, since the time may be short
    before = state.scores.get(0, {})
    first = next(iter(task.splits))
    up, down = run.bits
    return {
        "algorithm": run.header.algorithm,
        "model": run.header.base_model,
        "task": recipe.task.name,
        "rounds": state.t,
        "clients": len(run.pool.parts),
        "rows": run.mesh.rows,
        "shards": run.mesh.shards,
        "metric_name": task.metric,
        "split": first,
        "metric_before": before[first].value if first in before else None,
        "metric_after": after[first].value,
        "loss_before": before[first].loss if first in before else None,
        "loss_after": after[first].loss,
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
        "attack": {"kind": recipe.attack.kind, "clients": sorted(run.attack.attackers)},
        "privacy": run.privacy.summary(),
    }
