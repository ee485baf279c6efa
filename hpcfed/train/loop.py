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
from ..tasks.evaluate import Score, evaluate
from ..transport.base import check_same
from .keep import keep_best
from .log import log_round, log_scores, summary_of, tell_times
from .resume import resume
from .round import State
from .run import Run
from .watch import Watch, tell_standstill, watch


def run_all_rounds(run: Run) -> dict[str, Any]:
    """All rounds of the recipe, from where the trail ends; the summary, on every row.

    Collective: every row, once. A signal (SIGTERM, SIGUSR1, SIGINT) to any rank ends the run cleanly, after the round
    or within the evaluation that it is in (which is made up for when the run goes on), and so does a privacy budget
    that has no room for another round.
    """
    recipe, state = run.recipe, State()
    check_same(run.transport, "the recipe", recipe.model_dump_json())
    check_same(run.transport, "the base model's fingerprint", run.header.base_fingerprint)
    check_same(run.transport, "what the orbit says of the run", run.header.to_json())
    check_same(run.transport, "the training data's digest", run.data)
    check_same(run.transport, "the number of threads (OMP_NUM_THREADS, mesh.threads)", str(torch.get_num_threads()))
    check_same(run.transport, "how the model is asked for logits", run.problem.asked)
    check_same(run.transport, "the probe's mode", str(run.probe_mode))
    for what, digest in run.digests.items():
        check_same(run.transport, what, digest)
    with _stopping(state), run.record:
        resume(run, state)
        run.record.begin(recipe.rounds, state.t, recipe.tensorboard)
        for note in (*run.record.notes, *run.problem.notes):
            run.record.note(note)
        return _end(run, state, _rounds(run, state))


def _rounds(run: Run, state: State) -> str:
    """Collective: the rounds that are left, unless something ends the run before; the run's status then."""
    recipe = run.recipe
    if not state.caught_up or run.transport.any(state.stop):  # asked while the run was loaded
        return "interrupted"
    seen = Watch()
    while state.t < recipe.rounds:
        if _score_due(recipe, state) and not _scored(run, state):
            return "interrupted"
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
        silent = watch(run, state, seen, outcome) if run.privacy.may_tell else []
        interrupted = outcome.stop and state.t < recipe.rounds  # every row sees the same flag: all end together
        log_round(run, state, outcome, interrupted or state.t == recipe.rounds, silent)
        if recipe.check_every and state.t % recipe.check_every == 0:
            _check_rows(run, state.t)
            tell_times(run, state)
        if interrupted:
            return "interrupted"
    return "finished"


def _score_due(recipe: Recipe, state: State) -> bool:
    """Evaluate before the next round? Before the first and every eval_every rounds, once, though resumed."""
    at = state.t == 0 or (recipe.eval_every > 0 and state.t % recipe.eval_every == 0)
    return at and state.t not in state.scores


def _scored(run: Run, state: State) -> bool:
    """Collective: evaluate every split where the run stands; False if it was given up because a rank is to stop."""
    task, scores = run.problem.task, dict[str, Score]()
    for split, examples in task.splits.items():
        score = evaluate(
            run.problem.forward, task, examples, run.recipe.eval_batch, run.transport,
            lambda: run.transport.any(state.stop), run.problem.generate,
        )  # fmt: skip
        if score is None:
            return False
        scores[split] = score
    state.scores[state.t] = scores
    log_scores(run, state)
    return True


def _check_rows(run: Run, t: int) -> str:
    """Collective: all rows hold the same weights; their fingerprint."""
    fingerprint = run.problem.weights.fingerprint()
    check_same(run.transport, f"after round {t} the weights' fingerprint", fingerprint, DivergedError)
    return fingerprint


def _end(run: Run, state: State, status: str) -> dict[str, Any]:
    """Collective: last checks; row 0 seals the orbit, or saves the weights, and writes the summary."""
    fingerprint = _check_rows(run, state.t) if state.caught_up else None  # else the weights are between two rounds
    tell_times(run, state)
    tell_standstill(run, state.t, fingerprint)
    if status != "interrupted" and state.t not in state.scores and not _scored(run, state):
        status = "interrupted"
    kept = keep_best(run, state) if run.recipe.keep_best and status != "interrupted" else None
    if kept not in (None, state.t):
        fingerprint = _check_rows(run, kept)
    peaks = run.transport.everyone(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024).encode())
    gpu = torch.cuda.max_memory_allocated() if run.row.device == "cuda" else 0
    gpu_peaks = run.transport.everyone(str(gpu).encode())
    sizes = run.record.seal(state.t if kept is None else kept, fingerprint or "", status != "interrupted")
    summary: dict[str, Any] = summary_of(run, state, status, kept) | {
        "fingerprint": fingerprint,
        "orbit_bytes": sizes.get("orbit_bytes"),
        "weights_bytes": sizes.get("weights_bytes"),
        "peak_memory_bytes": max(int(peak) for peak in peaks),
        "peak_gpu_memory_bytes": max(int(peak) for peak in gpu_peaks) or None,
        "time_split": mean_shares(run.record.records()),
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
