"""Start here: one round of a federated zeroth-order method, whichever it is, on one row.

Legend   t: the round, from 0.  z: a random direction, named by a seed.  p: slope of a client's loss along z
Promise  after the round every row holds the same weights, bit for bit, and what was decided is in row 0's journal

What is called here, in the order of reading: the method (algorithms/feedsign.py is one), clients' slopes in
probe/slopes.py, traffic in transport/base.py (by way of privacy/hooks.py), the move in weights/mover.py.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from ..clock import COLLECTIVE, UPDATE
from ..messages import Ballots, Outcome, Reports, Slopes, Tally
from ..runs.agreement import votes_of
from ..tasks.evaluate import Score

if TYPE_CHECKING:
    from .run import OrbitRun

WINDOW = 100  # rounds that the estimate of the sign error looks back


@dataclass(eq=False)
class State:
    """Where the run stands.  t: rounds done.  last: decision of the last one.  stop: somebody asked this rank to end.

    seconds: of all rounds.  scores: rounds done -> split -> score.  pairs: agreement.pairs of the last rounds.
    caught_up: the weights are those after round t; not so where the end was asked for while the journal was replayed.
    abstentions: of all rounds.  abstainers: ids of the clients that they are from, as far as rows have told.
    """

    t: int = 0
    last: bytes | None = None
    stop: bool = False
    seconds: float = 0.0
    payload_bytes: int = 0
    scores: dict[int, dict[str, Score]] = field(default_factory=dict)
    pairs: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    caught_up: bool = True
    abstentions: int = 0
    abstainers: set[int] = field(default_factory=set)


def run_round(run: OrbitRun, t: int, state: State) -> Outcome:
    """Round t on this row. Collective: every rank, once a round, also of a row that hosts nobody."""
    steps = run.method.plan(t, state.last)  # directions: the same on every rank, nothing is sent
    slopes = run.clients.slopes(t, steps)  # forward passes; no weight has changed after them
    slopes = run.attack.on_slopes(slopes, t)  # Byzantine clients, where simulated; collective where they collude
    stop = run.row.any(state.stop)  # collective over the row: was any of its ranks asked to end?
    tally = send(run, slopes, t, stop)  # collective over the client axis: what all clients send, with FeedSign a bit
    with run.clock.during(UPDATE):
        decision = run.method.decide(tally, t, state.last)  # the same input on every rank, so the same decision
        run.record.append(t, decision)  # journal first: a crash between the two is replayable
        run.mover.apply([run.method.decode(decision, t)])  # replay calls this too
    state.last = decision
    common = steps.shared and not run.recipe.algorithm.traits.central  # the slices of one batch are no clients
    walked = steps.walk is not None and steps.batches == "step"
    skipped = int(np.isnan(tally.values).sum()) if walked and isinstance(tally, Reports) else 0
    return replace(outcome(slopes, tally, common and run.privacy.tally_known), skipped=skipped)


def send(run: OrbitRun, slopes: Slopes, t: int, stop: bool) -> Tally | Reports:
    """Collective: what all clients of the round send, votes or floats, on every row."""
    per_row = run.mesh.hosted(run.pool.groups(t), run.pool.n_groups)
    sent = run.method.ballots(slopes, t)
    if sent.dtype != np.int8:
        sizes = run.pool.sizes(t)
        with run.clock.during(COLLECTIVE):
            return run.transport.collect(sent, sizes, per_row, stop)
    votes = run.attack.on_votes(run.privacy.on_votes(sent), slopes.clients)
    ballots, form = Ballots(slopes.clients, votes), run.recipe.algorithm.ballot
    with run.clock.during(COLLECTIVE):
        return run.privacy.count(run.transport, ballots, run.pool.cohort_size, per_row, form, stop)


def outcome(slopes: Slopes, tally: Tally | Reports, shown: bool) -> Outcome:
    """The round's outcome on this row.  shown: clients have signs along common directions, which all may know."""
    finite = slopes.losses[np.isfinite(slopes.losses)]
    loss = float(np.mean(finite)) if len(finite) else float("nan")
    silent = [client for client, p in zip(slopes.clients, slopes.values, strict=True) if not np.isfinite(p).any()]
    sums, cast = (tally.sums, tally.cast) if isinstance(tally, Tally) else votes_of(tally.values)
    if isinstance(tally, Tally):
        abstained = tally.voters - int(tally.cast.max()) if shown else 0
    else:
        abstained = int(np.count_nonzero(~np.isfinite(tally.values).any(1)))
    shown_sums, shown_cast = (sums, cast) if shown else (None, None)
    return Outcome(loss, tally.stop, tally.payload_bytes, tally.collectives, abstained, shown_sums, shown_cast, silent)
