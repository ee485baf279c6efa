"""The run. Start reading at run_round: one round of a federated zeroth-order method, whichever it is."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch

from .algorithms import step_size
from .build import Run
from .clock import COLLECTIVE, SHARES, UPDATE, mean_shares, shares
from .config import Recipe
from .display import TensorBoardLog
from .errors import ConfigError, DivergedError
from .evaluate import Score, evaluate
from .keeper import Keeper, State, log_round, resume, save
from .messages import Ballots, Outcome, Reports, Slopes, Tally
from .monitor import votes_of
from .orbit import seal
from .privacy import Ledger, majority, most_votes, respond, total_epsilon
from .transport import check_same

BLOCK = 1024  # rounds whose times are gathered at once: 32 kB a row


def run_round(run: Run, t: int, keeper: Keeper | None, state: State) -> Outcome:
    """Round t on this row."""
    if run.dense:  # first-order references
        return run.dense.round(t, step_size(run.header.lr, run.header.schedule, t), state.stop)
    assert run.algorithm and run.mover
    plan = run.algorithm.plan(t, state.last)  # directions: the same on every rank, nothing is sent
    slopes = run.local.slopes(t, plan.seeds, plan.walk, plan.batches)  # forward passes; no weight has changed after it
    slopes = run.attack.on_slopes(slopes, t, run.transport.all_gather)  # Byzantine clients, where simulated
    found = send(run, slopes, t, run.transport.inside.any(state.stop))  # all traffic; FeedSign: one bit a client
    run.clock.to(UPDATE)
    try:
        payload = run.algorithm.decide(found, t, state.last)  # the same input on every rank, so the same decision
    except DivergedError as e:
        raise run.transport.everywhere(e) from None
    if keeper and keeper.journal:
        keeper.journal.append(t, payload)  # journal first: a crash between the two is replayable
    run.mover.apply([run.algorithm.decode(payload, t)])
    state.last = payload
    shared = len(plan.seeds) == 1 and plan.walk is None and run.recipe.algorithm.name != "mezo"
    return outcome(slopes, found, shared and run.recipe.privacy.mechanism != "central")


def send(run: Run, slopes: Slopes, t: int, stop: bool) -> Tally | Reports:
    """Collective: what all clients of the round send, votes or floats, on every row."""
    assert run.algorithm
    voters, hosted = who_votes(run, t)
    if run.algorithm.ballots is None:
        with np.errstate(over="ignore"):  # what float32 cannot hold is not finite: the client abstains
            values = slopes.values.astype(np.float32)
        sizes = run.pool.sizes(t)
        with run.clock.during(COLLECTIVE):
            return run.transport.collect(values, sizes, hosted, stop)
    votes, privacy = run.algorithm.ballots(slopes, t), run.recipe.privacy
    epsilon = privacy.epsilon or 0.0
    if privacy.mechanism == "local":
        votes = respond(votes, epsilon)
    ballots = Ballots(slopes.clients, run.attack.on_votes(votes, slopes.clients))
    with run.clock.during(COLLECTIVE):
        if privacy.mechanism == "central":
            return run.transport.private_tally(ballots, voters, hosted, lambda sums: majority(sums, epsilon), stop)
        return run.transport.tally(ballots, voters, hosted, run.recipe.algorithm.ballot, stop)


def who_votes(run: Run, t: int) -> tuple[int, list[int]]:
    """How many clients vote in round t, in all and on each row; every rank finds the same."""
    return run.pool.cohort_size, run.mesh.hosted(run.pool.groups(t), run.pool.n_groups)


def outcome(slopes: Slopes, found: Tally | Reports, tallied: bool) -> Outcome:
    """The round's outcome on this row; tallied: the clients' signs along common directions may be shown."""
    loss = float(np.mean(slopes.losses)) if len(slopes.losses) else float("nan")
    sums, cast = (found.sums, found.cast) if isinstance(found, Tally) else votes_of(found.values)
    if isinstance(found, Tally):
        abstained = found.voters - int(found.cast.max()) if tallied else 0
    else:
        abstained = int(np.count_nonzero(~np.isfinite(found.values).any(1)))
    signs = (sums, cast) if tallied else (None, None)
    return Outcome(loss, found.stop, found.payload_bytes, found.collectives, abstained, *signs)


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
    _most_rounds_a_client(recipe)  # a budget without room for one round is refused before anything is written
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
    recipe, private, most = run.recipe, run.recipe.privacy.mechanism != "none", _most_rounds_a_client(run.recipe)
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
            _tell_times(run, keeper, state)
        if _score_due(recipe, state):
            _score(run, keeper, state)
        if interrupted:
            return "interrupted"
    return "finished"


def _most_rounds_a_client(recipe: Recipe) -> float:
    """How often a client may vote before privacy.budget is spent; infinity without one."""
    p = recipe.privacy
    if p.budget is None or p.epsilon is None:
        return float("inf")
    most = most_votes(p.epsilon, p.delta, p.budget) // recipe.algorithm.directions
    if most == 0:
        cost = total_epsilon(p.epsilon, recipe.algorithm.directions, p.delta)
        raise ConfigError(f"privacy.budget={p.budget:g}: one round alone costs {cost:g}; lower privacy.epsilon")
    return most


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


def _tell_times(run: Run, keeper: Keeper | None, state: State) -> None:
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


def _end(run: Run, keeper: Keeper | None, state: State, status: str) -> dict[str, Any]:
    """Collective: last checks and scores; row 0 seals the orbit, or saves the weights, and writes the summary."""
    fingerprint = _check_rows(run, state.t)
    _tell_times(run, keeper, state)
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
    summary = _summary(run, state) | {
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


def _summary(run: Run, state: State) -> dict[str, Any]:
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
        "privacy": _privacy(recipe, state),
    }


TRUSTED = {
    "central": "row 0, which alone sees the tally and draws the majority",
    "local": "nobody: every client draws its own noise",
}


def _privacy(recipe: Recipe, state: State) -> dict[str, Any] | None:
    """What the run promises its clients, or None."""
    p = recipe.privacy
    if p.mechanism == "none" or p.epsilon is None:
        return None
    # No round is begun that the budget has no room for, so a restart after the last one has nothing to add.
    votes = int(min(state.votes.most + state.restarts, _most_rounds_a_client(recipe))) * recipe.algorithm.directions
    return {
        "mechanism": p.mechanism,
        "epsilon": total_epsilon(p.epsilon, votes, p.delta) if votes else 0.0,
        "delta": p.delta,
        "epsilon_per_vote": p.epsilon,
        "votes_of_one_client": votes,
        "neighbours": "runs that differ in the votes of one client",
        "trusted": TRUSTED[p.mechanism],
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
    held = signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)  # what came earlier is heard now
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
