"""The run. Start reading at run_round: one round of a federated zeroth-order method, whichever it is."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from ..clock import mean_shares
from ..config import Recipe
from ..errors import DivergedError
from ..orbit import seal
from ..privacy import Ledger
from ..privacy.budget import most_rounds_a_client
from ..runs.keeper import Keeper
from ..runs.progress import TensorBoardLog
from ..tasks.evaluate import Score, evaluate
from ..transport.base import check_same
from .build import Run
from .log import log_round, summary_of, tell_times
from .resume import resume, save
from .round import State, run_round


def train(run: Run, keeper: Keeper | None) -> dict[str, Any]:
    """All rounds of the recipe, from where the journal ends; the summary, on every row.

    Collective: every row, once. A signal (SIGTERM, SIGUSR1, SIGINT) to any rank ends the run cleanly after the round,
    and so does a privacy budget that has no room for another.
    """
    recipe, state = run.recipe, State(Ledger(run.pool.clients))
    check_same(run.transport, "the recipe", recipe.model_dump_json())
    check_same(run.transport, "the base model's fingerprint", run.header.base_fingerprint)
    check_same(run.transport, "the training data's digest", run.data)
    check_same(run.transport, "the number of threads (OMP_NUM_THREADS, mesh.threads)", str(torch.get_num_threads()))
    check_same(run.transport, "the probe's mode", run.local.probe.mode)
    most_rounds_a_client(recipe)  # a budget without room for one round is refused before anything is written
    with _stopping(state), ExitStack() as stack:
        notes = resume(run, keeper, state)
        if keeper:
            if keeper.journal:
                stack.callback(keeper.journal.close)
            if recipe.tensorboard:
                keeper.board = stack.enter_context(TensorBoardLog(keeper.folder.path / "tensorboard"))
            progress = stack.enter_context(keeper.show(recipe.rounds, state.t))
            for note in keeper.folder.notes + run.problem.notes + notes:
                progress.note(note)
        if _score_due(recipe, state):
            _score(run, keeper, state)
        return _end(run, keeper, state, _rounds(run, keeper, state))


def _rounds(run: Run, keeper: Keeper | None, state: State) -> str:
    """Collective: the rounds that are left, unless something ends the run before; the run's status then."""
    recipe, private, most = run.recipe, run.recipe.privacy.mechanism != "none", most_rounds_a_client(run.recipe)
    while state.t < recipe.rounds:
        if private and state.votes.would_be(run.pool.cohort(state.t)) + state.restarts > most:
            return "budget spent"
        with run.clock.round():
            found = run_round(run, state.t, keeper, state)
        if private:
            state.votes.spend(run.pool.cohort(state.t))
        state.t += 1
        state.seconds += run.clock.seconds  # of rounds alone, without evaluations
        state.payload_bytes += found.payload_bytes
        interrupted = found.stop and state.t < recipe.rounds  # every row sees the same flag: all end together
        if keeper:
            log_round(run, keeper, state, found, interrupted or state.t == recipe.rounds)
            if run.dense and state.t % recipe.save_every == 0:
                save(run, keeper, state.t, run.problem.weights.fingerprint())
        if recipe.check_every and state.t % recipe.check_every == 0:
            _check_rows(run, state.t)
            tell_times(run, keeper, state)
        if _score_due(recipe, state):
            _score(run, keeper, state)
        if interrupted:
            return "interrupted"
    return "finished"


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
    """Collective: last checks and scores; row 0 seals the orbit, or saves the weights, and writes the summary."""
    fingerprint = _check_rows(run, state.t)
    tell_times(run, keeper, state)
    if not state.scores or (status != "interrupted" and state.t not in state.scores):
        _score(run, keeper, state)
    peaks = run.transport.everyone(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024).encode())
    gpu = torch.cuda.max_memory_allocated() if run.transport.inside.device == "cuda" else 0
    gpu_peaks = run.transport.everyone(str(gpu).encode())
    orbit_bytes, weights_bytes = 0, 0
    if keeper and run.dense:
        weights_bytes = save(run, keeper, state.t, fingerprint)
    elif keeper and keeper.journal:
        keeper.journal.close()
        if status == "interrupted":
            orbit_bytes = keeper.folder.journal.stat().st_size
        else:
            orbit_bytes = seal(keeper.folder.orbit, run.header, keeper.journal.payloads, fingerprint)
    summary = summary_of(run, state) | {
        "fingerprint": fingerprint,
        "orbit_bytes": None if run.dense else orbit_bytes,
        "weights_bytes": weights_bytes if run.dense else None,
        "peak_memory_bytes": max(int(peak) for peak in peaks),
        "peak_gpu_memory_bytes": max(int(peak) for peak in gpu_peaks) or None,
        "time_split": mean_shares(keeper.folder.records()) if keeper else None,
        "status": status,
    }
    if keeper:
        keeper.folder.write_summary(summary)
    return summary


@contextmanager
def _stopping(state: State) -> Iterator[None]:
    """Inside, a signal asks for a clean end; a second SIGINT ends at once."""

    def ask(number: int, _frame: object) -> None:
        if state.stop and number == signal.SIGINT:
            raise KeyboardInterrupt
        state.stop = True

    signals = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    before = [signal.signal(number, ask) for number in signals]
    held = signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)  # what came earlier is heard now
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
