"""What is written on the way and in the end: lines of metrics.jsonl, the summary."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..clock import PARTS, SHARES, shares
from ..messages import Outcome
from ..privacy.budget import privacy_summary
from ..runs import agreement as monitor
from ..runs.keeper import Keeper
from .build import Run
from .round import State


def log_round(run: Run, keeper: Keeper, state: State, outcome: Outcome, end: bool) -> None:
    """A line of metrics.jsonl for every log_every-th round and the last, and the progress bar.

    A private run logs nothing that depends on a client but the votes that were made private.
    """
    private = run.recipe.privacy.mechanism != "none"
    loss = float("nan") if private else outcome.loss
    record: dict[str, Any] = {"t": state.t, "loss": loss} | ({} if private else {"abstained": outcome.abstained})
    agreement = float("nan")
    if outcome.sums is not None and outcome.cast is not None:
        agreement = monitor.agreement(outcome.sums, outcome.cast)
        record |= {"agreement": agreement, "sums": outcome.sums.tolist()}
    if outcome.sums is not None and outcome.cast is not None and not private:  # noise of the mechanism is no sign error
        state.pairs.append(monitor.pairs(outcome.sums, outcome.cast))
        error = monitor.sign_error(list(state.pairs))
        record |= {"pairs": state.pairs[-1], "sign_error": error}
    assert keeper.progress
    while run.local.probe.graphs and run.local.probe.graphs.notes:
        keeper.progress.note(run.local.probe.graphs.notes.pop(0))
    keeper.progress.round(state.t - 1, loss=loss, agreement=agreement)
    if state.t % run.recipe.log_every == 0 or end:
        record |= {
            "uplink_bits_per_client": run.bits[0],
            "downlink_bits_per_client": run.bits[1],
            "payload_bytes": outcome.payload_bytes,
            "collectives": outcome.collectives,
            "wire_payload_bytes": state.payload_bytes,
            "seconds": round(state.seconds, 4),
        }
        if not private:  # how long row 0 takes says how much its clients hold
            record["time"] = {part: round(spent, 7) for part, spent in zip(PARTS, run.clock.last, strict=True)}
        keeper.folder.log(record)
        if keeper.board:
            keeper.board.scalar("loss", loss, state.t)
            keeper.board.scalar("agreement", agreement, state.t)


BLOCK = 1024  # rounds whose times are gathered at once: 32 kB a row


def tell_times(run: Run, keeper: Keeper | None, state: State) -> None:
    """Collective: a line of metrics.jsonl with the mean time of a round since the last such line, over all rows.

    A private run tells nothing: how long a row takes says how much its clients hold.
    Traffic: 32 bytes a round and row, BLOCK rounds at a time.
    """
    mine = run.clock.take()
    if run.recipe.privacy.mechanism != "none":
        return
    total = np.zeros((run.mesh.rows, len(SHARES)))
    for low in range(0, len(mine), BLOCK):
        everyone = run.transport.all_gather(mine[low : low + BLOCK].tobytes())
        total += shares(np.stack([np.frombuffer(raw, np.float64).reshape(-1, mine.shape[1]) for raw in everyone]))
    if keeper and len(mine):
        mean = dict(zip(SHARES, np.round(total.mean(0) / len(mine), 7).tolist(), strict=True))
        slowest = int(total[:, SHARES.index("waiting")].argmin())
        record = {"t": state.t, "timed": len(mine), "rows": run.mesh.rows, "slowest_row": slowest, "time": mean}
        keeper.folder.log(record)


def summary_of(run: Run, state: State) -> dict[str, Any]:
    """What summary.json says of the run's settings and results."""
    recipe, task, clients = run.recipe, run.problem.task, run.pool
    after = state.scores[max(state.scores)]  # interrupted: the last known, since the time may be short
    before = state.scores.get(0, {})
    first = next(iter(task.splits))
    up, down = run.bits
    return {
        "algorithm": recipe.algorithm.name,
        "model": run.header.base_model,
        "task": recipe.task.name,
        "rounds": state.t,
        "clients": len(clients.parts),
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
        "device": run.transport.inside.device,
        "probe": run.local.probe.mode,
        "attack": {"kind": recipe.attack.kind, "clients": sorted(run.attack.attackers)},
        "privacy": privacy_summary(recipe, state.votes.most + state.restarts),
    }
