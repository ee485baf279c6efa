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

from .env import Launch
from .runlog import ENDED, SUMMARY
from .transport import Transport, agent_store


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
