"""The run. Start reading at run_round: one round of a federated zeroth-order method, whichever it is."""

from __future__ import annotations

import json
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass, field
from typing import Any, TypeVar, cast

import numpy as np
import torch

from .build import Run, build_run
from .clients import partition_report
from .config import Recipe
from .display import Progress, TensorBoardLog
from .errors import DivergedError, HpcfedError, OrbitError
from .evaluate import Score, evaluate
from .messages import Ballots, Tally
from .orbit import Header, Journal, seal
from .replay import replay
from .runlog import RunFolder
from .transport import Transport, agree, check_same
from .update import apply_

T = TypeVar("T")


@dataclass(eq=False)
class Keeper:
    """What only row 0 has: the run folder, the journal, and the user's attention."""

    folder: RunFolder
    quiet: bool = False
    journal: Journal | None = None
    progress: Progress | None = None
    board: TensorBoardLog | None = None

    def show(self, total: int, start: int) -> Progress:
        """The progress of rounds `start` to `total`; enter it as a context."""
        self.progress = Progress(total, start, self.quiet)
        return self.progress


@dataclass(eq=False)
class State:
    """Where the run stands. t: rounds done; stop: somebody asked this rank to end after the round."""

    t: int = 0
    stop: bool = False
    seconds: float = 0.0
    payload_bytes: int = 0
    scores: dict[int, dict[str, Score]] = field(default_factory=dict)


def run_round(run: Run, t: int, keeper: Keeper | None, state: State) -> tuple[Tally, float]:
    """Round t on this row; returns the tally of all clients and the mean loss of those hosted here."""
    seeds = run.algorithm.directions(t)  # the same on every rank; nothing is sent
    clients, slopes, losses = run.local.slopes(t, seeds)  # forward passes only; the weights stay as they are
    ballots = Ballots(clients, run.algorithm.ballots(slopes, clients, t))  # FeedSign: one bit a client
    tally = run.transport.tally(ballots, *voters(run, t), run.recipe.algorithm.ballot, state.stop)  # all traffic
    try:
        payload = run.algorithm.decide(tally, t)  # the same input on every rank, so the same decision
    except DivergedError as e:
        raise run.transport.everywhere(e) from None
    if keeper and keeper.journal:
        keeper.journal.append(t, payload)  # journal first: a crash between the two is replayable
    apply_(run.problem.weights, [run.algorithm.decode(payload, t)], run.header.distribution, run.header.rounding)
    return tally, float(np.mean(losses)) if len(losses) else float("nan")


def voters(run: Run, t: int) -> tuple[int, list[int]]:
    """How many clients vote in round t, in all and on each row; every rank finds the same."""
    hosted = [0] * run.mesh.rows
    for group, members in run.pool.groups(t).items():
        hosted[run.mesh.row_of_group(group, run.pool.n_groups)] += len(members)
    return run.pool.cohort_size, hosted


def train(run: Run, keeper: Keeper | None) -> dict[str, Any]:
    """All rounds of the recipe, from where the journal ends; the summary, on every row.

    Collective: every row, once. A signal (SIGTERM, SIGUSR1, SIGINT) to any rank ends the run cleanly after the round.
    """
    recipe, state = run.recipe, State()
    check_same(run.transport, "the recipe", recipe.model_dump_json())
    check_same(run.transport, "the base model's fingerprint", run.header.base_fingerprint)
    check_same(run.transport, "the training data's digest", run.data)
    check_same(run.transport, "the number of threads (OMP_NUM_THREADS, mesh.threads)", str(torch.get_num_threads()))
    check_same(run.transport, "the probe's mode", run.local.probe.mode)
    with _stopping(state), ExitStack() as stack:
        notes = _resume(run, keeper, state)
        if keeper:
            assert keeper.journal
            stack.callback(keeper.journal.close)
            if recipe.tensorboard:
                keeper.board = stack.enter_context(TensorBoardLog(keeper.folder.path / "tensorboard"))
            progress = stack.enter_context(keeper.show(recipe.rounds, state.t))
            for note in keeper.folder.notes + notes:
                progress.note(note)
        if _score_due(recipe, state):
            _score(run, keeper, state)
        stopped = False
        while state.t < recipe.rounds and not stopped:
            began = time.monotonic()
            tally, loss = run_round(run, state.t, keeper, state)
            state.t += 1
            state.seconds += time.monotonic() - began  # of rounds alone, without evaluations
            state.payload_bytes += tally.payload_bytes
            stopped = tally.stop > 0 and state.t < recipe.rounds  # every row sees the same flag: all end together
            if keeper:
                _log_round(run, keeper, state, tally, loss, last=stopped or state.t == recipe.rounds)
            if recipe.check_every and state.t % recipe.check_every == 0:
                _check_rows(run, state.t)
            if _score_due(recipe, state):
                _score(run, keeper, state)
        return _end(run, keeper, state, "interrupted" if stopped else "finished")


def _resume(run: Run, keeper: Keeper | None, state: State) -> list[str]:
    """Bring every row to the end of row 0's journal, through the same apply_ that trained it; notes for the user.

    Collective. Every row gets row 0's scores too: what is evaluated next depends on them.
    """
    notes = together(run.transport, lambda: _open_journal(run, keeper, state) if keeper else [])
    sent = None
    if keeper and keeper.journal:
        scores = [[t, split, *astuple(score)] for t, known in state.scores.items() for split, score in known.items()]
        known = json.dumps([state.seconds, state.payload_bytes, scores]).encode()
        sent = known + b"\n" + b"".join(keeper.journal.payloads)
    line, _, raw = run.transport.broadcast(sent).partition(b"\n")
    state.seconds, state.payload_bytes, scores = json.loads(line)
    state.scores.clear()
    for t, split, *score in scores:
        state.scores.setdefault(t, {})[split] = Score(*score)
    size = run.header.round_bytes
    payloads = [raw[i : i + size] for i in range(0, len(raw), size)]
    state.t = len(payloads)
    replay(run.header, payloads, run.problem.weights)
    return notes


def _open_journal(run: Run, keeper: Keeper, state: State) -> list[str]:
    """Row 0: the journal, begun or gone on with, and what the earlier rounds left in metrics.jsonl."""
    task = run.problem.task
    report = partition_report(run.pool.parts, task.train.labels, task.labels)
    if keeper.folder.resumed and (before := keeper.folder.read_partition().get("digest")) not in (None, run.data):
        raise OrbitError(f"the training data, or who holds which, changed since the run began ({before} -> {run.data})")
    keeper.folder.write_partition(report.data() | {"digest": run.data})
    if not keeper.folder.resumed:
        keeper.journal = Journal.create(keeper.folder.journal, run.header)
        return [report.line()]
    keeper.journal = Journal.open(keeper.folder.journal)
    _check_header(keeper.journal.header, run.header)
    rounds = keeper.journal.rounds
    keeper.folder.rewind(rounds)
    _recall(keeper.folder, state, rounds, set(task.splits))
    repaired = [keeper.journal.repaired] if keeper.journal.repaired else []
    return [report.line(), *repaired, f"resumed after round {rounds}"]


def _check_header(found: Header, expected: Header) -> None:
    """A journal belongs to one recipe and one base model."""
    theirs, ours = json.loads(found.to_json()), json.loads(expected.to_json())
    different = [f"{key}: {theirs[key]} -> {ours[key]}" for key in ours if theirs[key] != ours[key]]
    if different:
        raise OrbitError(f"the journal was begun with other settings or another base model ({'; '.join(different)})")


def _recall(folder: RunFolder, state: State, rounds: int, splits: set[str]) -> None:
    """Time spent, bytes sent and scores found in the `rounds` before the interruption, from metrics.jsonl.

    Rounds after the last logged one are taken to be like those before it; a score of some splits only is forgotten.
    """
    for record in folder.records():
        if "split" in record and isinstance(record.get("loss"), float):
            score = Score(record["value"], record["loss"], record["examples"])
            state.scores.setdefault(record["t"], {})[record["split"]] = score
        elif "wire_payload_bytes" in record:
            state.seconds = record["seconds"] * rounds / record["t"]
            state.payload_bytes = record["wire_payload_bytes"] * rounds // record["t"]
    state.scores = {t: scores for t, scores in state.scores.items() if splits <= scores.keys()}


def _log_round(run: Run, keeper: Keeper, state: State, tally: Tally, loss: float, last: bool) -> None:
    agreement = float(np.mean((1 + np.abs(tally.sums) / np.maximum(tally.cast, 1)) / 2))
    assert keeper.progress
    keeper.progress.round(state.t - 1, loss=loss, agreement=agreement)
    if state.t % run.recipe.log_every == 0 or last:
        record = {
            "t": state.t,
            "loss": loss,
            "agreement": agreement,
            "sums": tally.sums.tolist(),
            "abstained": (tally.voters - tally.cast).tolist(),
            "uplink_bits_per_client": run.algorithm.uplink_bits,
            "downlink_bits_per_client": run.algorithm.downlink_bits,
            "payload_bytes": tally.payload_bytes,
            "collectives": tally.collectives,
            "wire_payload_bytes": state.payload_bytes,
            "seconds": round(state.seconds, 4),
        }
        keeper.folder.log(record)
        if keeper.board:
            keeper.board.scalar("loss", loss, state.t)
            keeper.board.scalar("agreement", agreement, state.t)


def _score_due(recipe: Recipe, state: State) -> bool:
    """Before the first round and every eval_every rounds, unless the run was interrupted after that; not at the end."""
    at = state.t == 0 or (recipe.eval_every > 0 and state.t % recipe.eval_every == 0 and state.t < recipe.rounds)
    return at and state.t not in state.scores


def _score(run: Run, keeper: Keeper | None, state: State) -> dict[str, Score]:
    """Collective: evaluate every split where the run stands."""
    task = run.problem.task
    scores = {
        split: evaluate(run.problem.forward, task, examples, run.recipe.eval_batch, run.transport)
        for split, examples in task.splits.items()
    }
    state.scores[state.t] = scores
    for split, s in scores.items() if keeper else ():
        assert keeper and keeper.progress
        keeper.progress.metric(state.t, split, task.metric, s.value, s.loss)
        record = {"t": state.t, "split": split, "metric": task.metric, "value": s.value, "loss": s.loss}
        keeper.folder.log(record | {"examples": s.examples})
        if keeper.board:
            keeper.board.scalar(f"{split}/{task.metric}", s.value, state.t)
            keeper.board.scalar(f"{split}/loss", s.loss, state.t)
    return scores


def _check_rows(run: Run, t: int) -> str:
    """Collective: all rows hold the same weights; their fingerprint."""
    found = run.problem.weights.fingerprint()
    check_same(run.transport, f"after round {t} the weights' fingerprint", found, DivergedError)
    return found


def _end(run: Run, keeper: Keeper | None, state: State, status: str) -> dict[str, Any]:
    """Collective: last checks and scores; row 0 seals the orbit and writes the summary."""
    fingerprint = _check_rows(run, state.t)
    if not state.scores or (status == "finished" and state.t not in state.scores):
        _score(run, keeper, state)
    after = state.scores[max(state.scores)]  # interrupted: the last known, since the time may be short
    before = state.scores.get(0, {})
    peaks = run.transport.all_gather(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024).encode())
    orbit_bytes = 0
    if keeper and keeper.journal:
        keeper.journal.close()
        if status == "finished":
            orbit_bytes = seal(keeper.folder.orbit, run.header, keeper.journal.payloads, fingerprint)
        else:
            orbit_bytes = keeper.folder.journal.stat().st_size
    summary = _summary(run, state, before, after) | {
        "fingerprint": fingerprint,
        "orbit_bytes": orbit_bytes,
        "peak_memory_bytes": max(int(peak) for peak in peaks),
        "status": status,
    }
    if keeper:
        keeper.folder.write_summary(summary)
    return summary


def _summary(run: Run, state: State, before: dict[str, Score], after: dict[str, Score]) -> dict[str, Any]:
    """What summary.json says of the run's settings and results."""
    recipe, task = run.recipe, run.problem.task
    first = next(iter(task.splits))
    return {
        "algorithm": recipe.algorithm.name,
        "model": run.header.base_model,
        "task": recipe.task.name,
        "rounds": state.t,
        "clients": recipe.clients.count,
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
        "uplink_bits_per_client_round": run.algorithm.uplink_bits,
        "wire_payload_bytes": state.payload_bytes,
        "fingerprint_base": run.header.base_fingerprint,
        "seconds": state.seconds,
        "seconds_per_round": state.seconds / state.t if state.t else None,
        "transport": run.transport.name,
        "probe": run.local.probe.mode,
    }


@contextmanager
def _stopping(state: State) -> Iterator[None]:
    """Inside, a signal asks for a clean end; a second SIGINT ends at once."""

    def ask(number: int, _frame: object) -> None:
        if state.stop and number == signal.SIGINT:
            raise KeyboardInterrupt
        state.stop = True

    signals = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    before = [signal.signal(number, ask) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def build_together(recipe: Recipe, transport: Transport) -> Run:
    """Collective: build_run on every row; if any row cannot, every row says why."""
    return together(transport, lambda: build_run(recipe, transport))


def together(transport: Transport, work: Callable[[], T]) -> T:
    """Collective: work() on every row; if it fails on any, every row raises ConfigError with all that went wrong."""
    done, problem = None, None
    try:
        done = work()
    except HpcfedError as e:
        problem = str(e)
    agree(transport, problem)
    return cast(T, done)
