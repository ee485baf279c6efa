"""Start here: one round of a federated zeroth-order method, whichever it is."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from ..algorithms import step_size
from ..clock import COLLECTIVE, UPDATE
from ..errors import DivergedError
from ..messages import Ballots, Outcome, Reports, Slopes, Tally
from ..privacy import Ledger, majority, respond
from ..runs.agreement import votes_of
from ..runs.keeper import Keeper
from ..tasks.evaluate import Score
from .build import Run

WINDOW = 100  # rounds that the estimate of the sign error looks back


@dataclass(eq=False)
class State:
    """Where the run stands.  t: rounds done.  last: payload of the last one.  stop: somebody asked this rank to end.

    votes: rounds that each client of a private run has voted in.  restarts: how often the run was resumed; each time a
    round may have been drawn anew whose first result had got out, so each counts as one vote more.
    pairs: monitor.pairs of the last rounds.
    """

    votes: Ledger
    t: int = 0
    restarts: int = 0
    last: bytes | None = None
    stop: bool = False
    seconds: float = 0.0
    payload_bytes: int = 0
    scores: dict[int, dict[str, Score]] = field(default_factory=dict)
    pairs: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))


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
