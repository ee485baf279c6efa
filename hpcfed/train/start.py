"""The public way into a run: `train` meets, enters the run folder, builds and runs all rounds.

A job that its launcher starts anew goes on from its journal, without --resume: torchrun --max-restarts N ends what is
left of the ranks when one of them dies and starts all of them again, with the same command line. The agent's store
outlives them: rank 0 notes there that this job has entered a run folder, and finds the note in the next attempt. It is
a note, not the restart count: an attempt that was refused (because an older run lies in the folder, say) leaves none,
so its successor is refused like it.

Promise  only a run that this job itself has begun, or has resumed, is gone on with; `force` starts over once, not again
         after every restart
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ..config import Recipe, load_recipe, to_toml
from ..orbit import ORBIT, WEIGHTS
from ..runs.folder import RunFolder
from ..runs.read import ENDED, MAY_CHANGE, SUMMARY, wants_more
from ..runs.record import Callback, FolderRecord, Record
from ..transport.base import Transport, together
from ..transport.choose import agent_store
from ..transport.launch import Launch
from .build import build_together
from .loop import run_all_rounds
from .meet import Meeting, meet
from .surroundings import check_alike, surroundings
from .trail import layout_begun


@dataclass(frozen=True, eq=False)
class Result:
    """What a run has come to, on every rank.

    summary: what summary.json says.  folder: the run folder.  orbit: the sealed orbit in it; None of a method without
    one, and of a run that was interrupted.  weights: the weights file of a method without an orbit.
    model: the fine-tuned model (with mesh.shards, this rank's part of it).  processor: its tokenizer, or what it wants
    of images.  Both are None where an earlier attempt of the job had already come to the end.
    """

    summary: dict[str, Any]
    folder: Path
    model: nn.Module | None = None
    processor: Any = None

    @property
    def orbit(self) -> Path | None:
        """The sealed orbit."""
        ended = self.summary["status"] != "interrupted"  # else it may lie there of a run that goes on
        return path if ended and (path := self.folder / ORBIT).is_file() else None

    @property
    def weights(self) -> Path | None:
        """The weights of a method without an orbit."""
        return path if (path := self.folder / WEIGHTS).is_file() else None


def train(
    recipe: Recipe | str | Path,
    out: str | Path,
    *,
    overrides: Sequence[str] = (),
    resume: bool = False,
    force: bool = False,
    quiet: bool = False,
    on_round: Callback | None = None,
    on_score: Callback | None = None,
) -> Result:
    """Run all rounds of a recipe, under whatever launcher this process was started by; what `hpcfed train` does.

    recipe: what load_recipe gives, or what it takes, then with `overrides`.  out: the run folder.
    resume: go on with an interrupted run there.  force: start over; an old run there is moved aside.
    quiet: no progress on stderr.
    on_round, on_score: called on rank 0 after each round and for each evaluated split, with its line of metrics.jsonl
    (docs/ARCHITECTURE.md has the keys); what they raise ends the run, which can be resumed.

    Collective: every rank of the launch calls it alike.  Raises HpcfedError (alone; on several ranks see meet.py).
    """
    with meet(lambda: recipe if isinstance(recipe, Recipe) else load_recipe(str(recipe), overrides)) as meeting:
        if meeting.transport.rank == 0 and not quiet:
            model, task = meeting.recipe.model.name, meeting.recipe.task.name
            print(f"loading {model} and the data of {task}", file=sys.stderr, flush=True)
        return run_recipe(meeting, Path(out), resume, force, quiet, on_round, on_score)


def run_recipe(
    meeting: Meeting,
    out: Path,
    resume: bool = False,
    force: bool = False,
    quiet: bool = False,
    on_round: Callback | None = None,
    on_score: Callback | None = None,
) -> Result:
    """Collective: the same among ranks that have met."""
    recipe, transport, launch = meeting.recipe, meeting.transport, meeting.launch

    def enter() -> Record:
        if transport.rank:
            return Record()
        folder = RunFolder.create(out, to_toml(recipe), here, force, resume, MAY_CHANGE)
        note_begun(launch, out)
        if earlier.begun:
            folder.notes.append(f"{launch.launcher} started the ranks anew: going on with the run in {out}")
        return FolderRecord(folder, quiet, on_round, on_score)

    here = surroundings(launch, transport.row.device, recipe.mesh.threads)
    check_alike(transport, here)
    earlier = earlier_attempts(transport, launch, out, recipe.rounds)
    if earlier.summary:  # a rank died on its way out
        return Result(earlier.summary, out)
    force, resume = force and not earlier.begun, resume or earlier.begun
    # An old run is moved aside only when the new one can start: a wrong setting must not cost a run.
    record = Record() if force else together(transport, enter)
    try:
        run = build_together(recipe, transport, begun_layout(transport, record))
        run.record = record = together(transport, enter) if force else record
        return Result(run_all_rounds(run), out, run.problem.model, run.problem.processor)
    finally:
        record.close()


def begun_layout(transport: Transport, record: Record) -> str:
    """Collective: the layout hash of the run that is gone on with, whose names the weights go by; "" of a new one."""
    layout = together(transport, lambda: layout_begun(record.folder) if isinstance(record, FolderRecord) else "")
    return transport.broadcast(layout.encode() if transport.rank == 0 else None).decode()


@dataclass(frozen=True)
class PastAttempts:
    """What earlier attempts of this job did.  begun: they entered the run folder.  summary: the run has ended so."""

    begun: bool = False
    summary: dict[str, Any] | None = None


def earlier_attempts(transport: Transport, launch: Launch, out: Path, rounds: int) -> PastAttempts:
    """Collective: every rank learns what rank 0 finds in the agent's store and in the run folder."""
    sent = None
    if transport.rank == 0:
        store = agent_store(launch)
        begun = store is not None and store.check([_key(out)])
        sent = json.dumps([begun, _ended(out, rounds) if begun else None]).encode()
    return PastAttempts(*json.loads(transport.broadcast(sent)))


def note_begun(launch: Launch, out: Path) -> None:
    """Rank 0: from now on this job's next attempt may go on with the run in `out`."""
    if (store := agent_store(launch)) is not None:
        store.set(_key(out), "1")


def _key(out: Path) -> str:
    return f"hpcfed/begun {out.resolve()}"


def _ended(out: Path, rounds: int) -> dict[str, Any] | None:
    """summary.json of a run of so many rounds that has ended for good, so that there is nothing to do; else None."""
    summary = json.loads((out / SUMMARY).read_text(encoding="utf-8")) if (out / SUMMARY).exists() else {}
    return summary if summary.get("status") in ENDED and not wants_more(summary, rounds) else None
