"""All rounds of a run: from where it stands to its end, with the evaluations, checks and signals around them."""

from __future__ import annotations

import json
import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..clock import mean_shares
from ..config import Recipe
from ..errors import DivergedError
from ..tasks.evaluate import evaluate
from ..transport.base import check_same
from .log import log_round, log_scores, summary_of, tell_times
from .resume import resume
from .round import State
from .run import Run


def run_all_rounds(run: Run) -> dict[str, Any]:
    """All rounds of the recipe, from where the trail ends; the summary, on every row.

    Collective: every row, once. A signal (SIGTERM, SIGUSR1, SIGINT) to any rank ends the run cleanly after the round,
    and so does a privacy budget that has no room for another.
    """
    recipe, state = run.recipe, State()
    check_same(run.transport, "the recipe", recipe.model_dump_json())
    check_same(run.transport, "the base model's fingerprint", run.header.base_fingerprint)
    check_same(run.transport, "what the orbit says of the run", run.header.to_json())
    check_same(run.transport, "the training data's digest", run.data)
    check_same(run.transport, "the number of threads (OMP_NUM_THREADS, mesh.threads)", str(torch.get_num_threads()))
    check_same(run.transport, "the probe's mode", str(run.probe_mode))
    with _stopping(state), run.record:
        resume(run, state)
        run.record.begin(recipe.rounds, state.t, recipe.tensorboard)
        for note in (*run.record.notes, *run.problem.notes):
            run.record.note(note)
        if _score_due(recipe, state):
            _score(run, state)
        return _end(run, state, _rounds(run, state))


def _rounds(run: Run, state: State) -> str:
    """Collective: the rounds that are left, unless something ends the run before; the run's status then."""
    recipe = run.recipe
    while state.t < recipe.rounds:
        if not run.privacy.room_for(state.t):
            return "budget spent"
        try:
            with run.clock.round():
                outcome = run.round(state.t, state)
        except DivergedError as error:  # decided by what all rows know
            raise run.transport.everywhere(error) from None
        run.privacy.spend(state.t)
        state.t += 1
        state.seconds += run.clock.seconds  # of rounds alone, without evaluations
        state.payload_bytes += outcome.payload_bytes
        interrupted = outcome.stop and state.t < recipe.rounds  # every row sees the same flag: all end together
        log_round(run, state, outcome, last=interrupted or state.t == recipe.rounds)
        if recipe.check_every and state.t % recipe.check_every == 0:
            _check_rows(run, state.t)
            tell_times(run, state)
        if _score_due(recipe, state):
            _score(run, state)
        if interrupted:
            return "interrupted"
    return "finished"


def _score_due(recipe: Recipe, state: State) -> bool:
    """Evaluate now? Before the first round and every eval_every rounds, once, though resumed; at the end, _end does."""
    at = state.t == 0 or (recipe.eval_every > 0 and state.t % recipe.eval_every == 0 and state.t < recipe.rounds)
    return at and state.t not in state.scores


def _score(run: Run, state: State) -> None:
    """Collective: evaluate every split where the run stands."""
    task = run.problem.task
    state.scores[state.t] = {
        split: evaluate(run.problem.forward, task, examples, run.recipe.eval_batch, run.transport)
        for split, examples in task.splits.items()
    }
    log_scores(run, state)


def _check_rows(run: Run, t: int) -> str:
    """Collective: all rows hold the same weights; their fingerprint."""
    fingerprint = run.problem.weights.fingerprint()
    check_same(run.transport, f"after round {t} the weights' fingerprint", fingerprint, DivergedError)
    return fingerprint


def _end(run: Run, state: State, status: str) -> dict[str, Any]:
    """Collective: last checks and scores; row 0 seals the orbit, or saves the weights, and writes the summary."""
    fingerprint = _check_rows(run, state.t)
    tell_times(run, state)
    if not state.scores or (status != "interrupted" and state.t not in state.scores):
        _score(run, state)
    peaks = run.transport.everyone(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024).encode())
    gpu = torch.cuda.max_memory_allocated() if run.row.device == "cuda" else 0
    gpu_peaks = run.transport.everyone(str(gpu).encode())
    sizes = run.record.seal(state.t, fingerprint, status != "interrupted")
    summary: dict[str, Any] = summary_of(run, state) | {
        "fingerprint": fingerprint,
        "orbit_bytes": sizes.get("orbit_bytes"),
        "weights_bytes": sizes.get("weights_bytes"),
        "peak_memory_bytes": max(int(peak) for peak in peaks),
        "peak_gpu_memory_bytes": max(int(peak) for peak in gpu_peaks) or None,
        "time_split": mean_shares(run.record.records()),
        "status": status,
    }
    told = run.transport.broadcast(json.dumps(summary).encode() if run.transport.rank == 0 else None)
    run.record.summary(summary)
    return json.loads(told)  # what rank 0 alone knows, too


@contextmanager
def _stopping(state: State) -> Iterator[None]:
    """Inside, a signal asks for a clean end; a second SIGINT ends at once. Without effect outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, _frame: object) -> None:
        if state.stop and number == signal.SIGINT:
            raise KeyboardInterrupt
        state.stop = True

    signals = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    handlers = [signal.signal(number, ask) for number in signals]
    mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)  # what came earlier is heard now
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in zip(signals, handlers, strict=True):
            signal.signal(number, handler)
