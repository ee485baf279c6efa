"""A job that its launcher starts anew goes on from its journal, without --resume.

torchrun --max-restarts N ends what is left of the ranks when one of them dies and starts all of them again, with the
same command line. The agent's store outlives them: rank 0 notes there that this job has entered a run folder, and finds
the note in the next attempt. A note, not the restart count: an attempt that was refused (because an older run lies in
the folder, say) leaves none, so its successor is refused like it.

Promise  only a run that this job itself has begun, or has resumed, is gone on with; --force starts over once, not again
         after every restart
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import Recipe, to_toml
from ..runs.folder import RunFolder
from ..runs.keeper import Keeper
from ..runs.read import ENDED, MAY_CHANGE, SUMMARY
from ..transport.base import Transport, together
from ..transport.choose import agent_store
from ..transport.launch import Launch, describe
from .build import build_together
from .loop import train


@dataclass(frozen=True)
class Earlier:
    """What earlier attempts of this job did.  begun: they entered the run folder.  summary: the run has ended so."""

    begun: bool = False
    summary: dict[str, Any] | None = None


def earlier_attempts(transport: Transport, launch: Launch, out: Path) -> Earlier:
    """Collective: every rank learns what rank 0 finds in the agent's store and in the run folder."""
    sent = None
    if transport.rank == 0:
        store = agent_store(launch)
        begun = store is not None and store.check([_key(out)])
        sent = json.dumps([begun, _ended(out) if begun else None]).encode()
    return Earlier(*json.loads(transport.broadcast(sent)))


def note_begun(launch: Launch, out: Path) -> None:
    """Rank 0: from now on this job's next attempt may go on with the run in `out`."""
    if (store := agent_store(launch)) is not None:
        store.set(_key(out), "1")


def _key(out: Path) -> str:
    return f"hpcfed/begun {out.resolve()}"


def _ended(out: Path) -> dict[str, Any] | None:
    """summary.json of a run that has ended for good, so that --resume has nothing to do there; else None."""
    summary = json.loads((out / SUMMARY).read_text(encoding="utf-8")) if (out / SUMMARY).exists() else {}
    return summary if summary.get("status") in ENDED else None


def run_recipe(
    recipe: Recipe, transport: Transport, launch: Launch, out: Path, resume: bool, force: bool, quiet: bool
) -> dict[str, Any]:
    """One rank's part of a training run: enter the run folder (row 0), build, train."""

    def enter() -> RunFolder | None:
        if transport.rank:
            return None
        entered = RunFolder.create(out, to_toml(recipe), describe(launch), force, resume, MAY_CHANGE)
        note_begun(launch, out)
        if earlier.begun:
            entered.notes.append(f"{launch.launcher} started the ranks anew: going on with the run in {out}")
        return entered

    earlier = earlier_attempts(transport, launch, out)
    if earlier.summary:  # a rank died on its way out
        return earlier.summary
    force, resume = force and not earlier.begun, resume or earlier.begun
    # --force moves the old run aside only when the new one can start: a wrong setting must not cost a run.
    folder = None if force else together(transport, enter)
    try:
        run = build_together(recipe, transport)
        folder = together(transport, enter) if force else folder
        return train(run, Keeper(folder, quiet) if folder else None)
    finally:
        if folder:
            folder.close()
