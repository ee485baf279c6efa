"""What a run finds out about its clients' slopes on the way, and says once: who abstains, and which slopes are 0.

A slope of 0 says nothing: 16-bit losses often tie, and a client of FeedSign then votes by a coin of its own. Where all
slopes are 0 the run would train on coins, so it ends. Rows tell each other what they have seen when a client
abstains for the first time, after the first EARLY rounds, with every check of the rows and at the end.

Promise  a private run is not watched: nobody may know which client abstained, or how a slope came out
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from ..errors import ConfigError
from ..messages import Outcome
from ..probe.resolution import enough_mu, moved_share
from .round import State
from .run import Run

EARLY = 10  # rounds after which the slopes are looked at for the first time
FEW = 10  # slopes that may all be 0 by chance


@dataclass(eq=False)
class Watch:
    """What this row has seen since rows told each other.  rounds: watched in all.  noted: zeros have been spoken of."""

    silent: set[int] = field(default_factory=set)
    zeros: int = 0
    slopes: int = 0
    rounds: int = 0
    noted: bool = False


def watch(run: Run, state: State, seen: Watch, outcome: Outcome) -> list[int]:
    """Collective: a round more. Ids of clients that have abstained for the first time, as far as rows told it by now.

    Raises ConfigError on every row alike if all slopes are exactly 0.
    """
    recipe, first = run.recipe, bool(outcome.abstained) and not state.abstainers
    state.abstentions += outcome.abstained
    seen.silent |= set(outcome.silent) - state.abstainers
    seen.zeros, seen.slopes, seen.rounds = seen.zeros + outcome.zeros, seen.slopes + outcome.slopes, seen.rounds + 1
    checked = bool(recipe.check_every) and state.t % recipe.check_every == 0
    if not (first or checked or seen.rounds == EARLY or state.t == recipe.rounds):
        return []
    told = run.transport.all_gather(json.dumps([sorted(seen.silent), seen.zeros, seen.slopes]).encode())
    rows = [json.loads(raw) for raw in told]
    new = sorted({client for silent, *_ in rows for client in silent} - state.abstainers)
    zeros, slopes = (sum(row[i] for row in rows) for i in (1, 2))
    state.abstainers |= set(new)
    if new:
        run.record.note(_silence(run, new))
    if seen.rounds < EARLY and state.t < recipe.rounds:
        seen.silent = set()
        return new
    ties = run.problem.task.objective is not None  # most rounds of a reward change nothing
    if zeros == slopes >= FEW and not ties:
        raise run.transport.everywhere(ConfigError(_nothing_but_zeros(run, state.t, slopes)))
    if zeros and not seen.noted:
        seen.noted = True
        what = "votes by a coin" if recipe.algorithm.traits.votes else "says nothing"
        why = f"task.objective={recipe.task.objective!r} is the same on both sides"
        if not ties:
            why = f"algorithm.mu={recipe.algorithm.mu:g} may be small for {recipe.model.dtype}"
        share = f"{100 * zeros / slopes:.3g} % of the slopes up to round {state.t} are exactly 0"
        run.record.note(f"{share}; who finds one {what}; {why}")
    seen.silent, seen.zeros, seen.slopes = set(), 0, 0
    return new


def tell_standstill(run: Run, t: int, fingerprint: str | None) -> None:
    """Say that t rounds have moved no weight, if so."""
    if t and fingerprint == run.header.base_fingerprint:
        a, dtype = run.recipe.algorithm, run.recipe.model.dtype
        run.record.note(
            f"algorithm.lr={a.lr:g}: {t:,} rounds have moved no weight; if they found a direction, the step is below "
            f"the resolution of {dtype} weights, and a larger one is needed"
        )


def _silence(run: Run, clients: list[int]) -> str:
    """Who abstains, and why most likely."""
    one = "slice of the batch" if run.recipe.algorithm.traits.central else "client"
    who = f"{one} {clients[0]} abstains" if len(clients) == 1 else f"{len(clients)} {one}s abstain"
    if len(clients) > 1:
        who += f" ({', '.join(map(str, clients[:10]))}{', ...' if len(clients) > 10 else ''})"
    cure = "" if run.recipe.model.dtype == "float32" else ', or 16 bits overflow: model.dtype="float32" would show'
    return (
        f"{who} since the loss there is not finite: a weight that these examples use may be damaged{cure}; "
        "the others go on without"
    )


def _nothing_but_zeros(run: Run, t: int, slopes: int) -> str:
    """What is wrong where no loss depends on the side."""
    a, dtype = run.recipe.algorithm, run.recipe.model.dtype
    told = f"all {slopes:,} slopes up to round {t} are exactly 0"
    enough = enough_mu(run.problem.weights, a.mu)
    if moved_share(run.problem.weights, a.mu) < 0.5 or not a.train_only:
        least = max(enough, 10 * a.mu)
        return (
            f"algorithm.mu={a.mu:g}: {told}, so it is below the resolution of {dtype} weights and losses; use at least "
            f"{least:.0e}" + ("" if dtype == "float32" else ', or model.dtype="float32"')
        )
    return f"algorithm.train_only={a.train_only}: {told}, so the loss does not depend on these parameters; name others"
