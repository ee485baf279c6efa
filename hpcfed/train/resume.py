"""Where a run stands and what it leaves behind: run folder, journal, metrics, progress; and how it is taken up again.

Row 0 has a Keeper; every row has a State. `resume` brings both, and the weights, to the end of what is on disk.
"""

from __future__ import annotations

import json
from dataclasses import astuple

from ..clients import PartitionReport, partition_report
from ..clients.hosted import HostedPool
from ..errors import OrbitError
from ..orbit import Header, Journal
from ..runs.folder import RunFolder
from ..runs.keeper import Keeper
from ..tasks.evaluate import Score
from ..transport.base import together
from ..weights.checkpoint import load_weights, save_weights
from ..weights.weights import memory
from .build import Run
from .replay import replay
from .round import State


def resume(run: Run, keeper: Keeper | None, state: State) -> list[str]:
    """Bring every row to the end of what row 0 has on disk; notes for the user.

    Collective. Rounds on record move the weights through the same Mover that trained them; a method without an orbit
    goes on from its saved weights. Every row gets row 0's scores too: what is evaluated next depends on them.
    """
    notes = together(run.transport, lambda: _open(run, keeper, state) if keeper else [])
    sent = None
    if keeper:
        scores = [[t, split, *astuple(score)] for t, known in state.scores.items() for split, score in known.items()]
        known = json.dumps([keeper.folder.restarts, state.seconds, state.payload_bytes, scores]).encode()
        sent = known + b"\n" + b"".join(keeper.journal.payloads if keeper.journal else [])
    line, _, raw = run.transport.broadcast(sent).partition(b"\n")
    state.restarts, state.seconds, state.payload_bytes, scores = json.loads(line)
    state.scores.clear()
    for t, split, *score in scores:
        state.scores.setdefault(t, {})[split] = Score(*score)
    if run.mover:
        size = run.header.round_bytes
        payloads = [raw[i : i + size] for i in range(0, len(raw), size)]
        state.t, state.last = len(payloads), payloads[-1] if payloads else None
        replay(run.header, payloads, run.problem.weights, run.mover)
    elif run.dense:
        state.t = int(run.transport.broadcast(str(state.t).encode() if keeper else None))
        _share(run)
    for t in range(state.t) if run.recipe.privacy.mechanism != "none" else ():
        state.votes.spend(run.pool.cohort(t))
    return [*notes, *([f"resumed after round {state.t}"] if keeper and keeper.folder.resumed else [])]


def save(run: Run, keeper: Keeper, t: int, fingerprint: str) -> int:
    """Row 0 of a dense run: what it goes on from, and in the end its result; the size in bytes."""
    return save_weights(keeper.folder.weights, run.problem.weights, t, fingerprint, json.loads(run.header.to_json()))


def _share(run: Run) -> None:
    """Collective: row 0's weights on every row, tensor by tensor."""
    for p in run.problem.weights.params.values():
        here = p.data.cpu()
        raw = memory(here)
        raw[:] = run.transport.broadcast(raw.tobytes() if run.transport.rank == 0 else None)
        p.data.copy_(here)


def _open(run: Run, keeper: Keeper, state: State) -> list[str]:
    """Row 0: the journal, begun or gone on with, and what the earlier rounds left in metrics.jsonl."""
    task, folder = run.problem.task, keeper.folder
    if folder.resumed and (before := folder.read_partition().get("digest")) not in (None, run.data):
        raise OrbitError(f"the training data, or who holds which, changed since the run began ({before} -> {run.data})")
    # How many examples of which class a client has is its own affair in a private run.
    report = None if run.recipe.privacy.mechanism != "none" else _holdings(run)
    folder.write_partition((report.data() if report else {}) | {"digest": run.data})
    notes = [report.line()] if report else []
    if run.dense:
        if not folder.resumed:  # at once, like a journal: from now on nobody starts over here unasked
            save(run, keeper, 0, run.header.base_fingerprint)
        else:
            state.t, header = load_weights(folder.weights, run.problem.weights)
            _check_header(Header.from_json(json.dumps(header, sort_keys=True, separators=(",", ":"))), run.header)
    elif not folder.resumed:
        keeper.journal = Journal.create(folder.journal, run.header)
    else:
        keeper.journal = Journal.open(folder.journal)
        _check_header(keeper.journal.header, run.header)
        state.t = keeper.journal.rounds
        notes += [keeper.journal.repaired] if keeper.journal.repaired else []
    if folder.resumed:
        folder.rewind(state.t)
        _recall(folder, state, state.t, set(task.splits))
    return notes


def _holdings(run: Run) -> PartitionReport:
    """Which client holds how much of what."""
    task = run.problem.task
    if isinstance(run.pool, HostedPool):
        return run.pool.report(task.labels)
    return partition_report(run.pool.parts, task.train.labels, task.labels)


def _check_header(found: Header, expected: Header) -> None:
    """A journal belongs to one recipe and one base model."""
    theirs, ours = json.loads(found.to_json()), json.loads(expected.to_json())
    different = [f"{key}: {theirs[key]} -> {ours[key]}" for key in ours if theirs[key] != ours[key]]
    if different:
        raise OrbitError(f"the run was begun with other settings or another base model ({'; '.join(different)})")


def _recall(folder: RunFolder, state: State, rounds: int, splits: set[str]) -> None:
    """Time spent, bytes sent and scores found in the `rounds` before the interruption, from metrics.jsonl.

    Rounds after the last logged one are taken to be like those before it; a score of some splits only is forgotten.
    """
    for record in folder.records():
        if "split" in record and isinstance(record.get("loss"), float):
            score = Score(record["value"], record["loss"], record["examples"])
            state.scores.setdefault(record["t"], {})[record["split"]] = score
        elif "wire_payload_bytes" in record:
            pairs = record.get("pairs")
            state.pairs.append(pairs if isinstance(pairs, float) else float("nan"))
            state.seconds = record["seconds"] * rounds / record["t"]
            state.payload_bytes = record["wire_payload_bytes"] * rounds // record["t"]
    state.scores = {t: scores for t, scores in state.scores.items() if splits <= scores.keys()}
