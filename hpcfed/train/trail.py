"""What row 0 keeps on disk for a run to go on from, and what becomes of it in the end.

    JournalTrail    of a method with an orbit: every decision, before it moves a weight; sealed in the end
    WeightsTrail    of a dense method: the weights, every so many rounds

Promise  a trail belongs to one recipe and one base model: with others it is refused, and left as it is
"""

from __future__ import annotations

import json
from dataclasses import replace

from ..errors import OrbitError
from ..orbit import Header, Journal, lasting, read_journal, seal
from ..runs.folder import RunFolder
from ..weights import Weights
from ..weights.checkpoint import load_weights, read_facts, save_weights

SYNC_SECONDS = 1.0  # between waits for the disk: what a power failure may cost, and a round of the digits takes 0.01


def layout_begun(folder: RunFolder) -> str:
    """The layout hash of the run that is gone on with in a folder; "" if none is.  Raises OrbitError."""
    if not folder.resumed:
        return ""
    header = read_journal(folder.journal)[0] if folder.journal.exists() else read_facts(folder.weights)
    return header.layout_hash


class JournalTrail:
    """sync: wait for the disk after every round.

    rounds: on record when it was opened.  decisions: one a round, so far.  notes: what the user should know.
    """

    def __init__(self, folder: RunFolder, header: Header, sync: bool = False) -> None:
        self._folder, self._header, pause = folder, header, 0.0 if sync else SYNC_SECONDS
        if not folder.resumed:
            self._journal = Journal.create(folder.journal, header, pause)
        else:
            self._journal = Journal.open(folder.journal, pause)
            _check_header(self._journal.header, header)
            # Of an older version it may say less; how many rounds are planned is said anew.
            self._header = replace(self._journal.header, schedule=header.schedule)
        self.rounds, self.decisions = self._journal.rounds, self._journal.decisions
        self.notes = [self._journal.repaired] if self._journal.repaired else []

    def append(self, t: int, decision: bytes) -> None:
        """Round t is decided so."""
        self._journal.append(t, decision)

    def seal(self, rounds: int, fingerprint: str, ended: bool) -> dict[str, int | None]:
        """The run stands here, or with keep_best is sealed here; ended: for good. Its bytes, for summary.json."""
        self._journal.close()
        if ended:
            return {"orbit_bytes": seal(self._folder.orbit, self._header, self.decisions[:rounds], fingerprint)}
        return {"orbit_bytes": self._folder.journal.stat().st_size}

    def close(self) -> None:
        """Nothing more is appended."""
        self._journal.close()


class WeightsTrail:
    """rounds: behind the saved weights.  decisions: none.  notes: what the user should know.

    Of a run that is taken up again, `weights` are overwritten by the saved ones.
    """

    def __init__(self, folder: RunFolder, header: Header, weights: Weights, save_every: int) -> None:
        self._folder, self._header, self._weights, self._save_every = folder, header, weights, save_every
        self.rounds, self.decisions, self.notes = 0, list[bytes](), list[str]()
        if not folder.resumed:  # at once, like a journal: from now on nobody starts over here unasked
            self._save(0, header.base_fingerprint)
        else:
            self.rounds, saved = load_weights(folder.weights, weights)
            _check_header(Header.from_json(json.dumps(saved, sort_keys=True, separators=(",", ":"))), header)

    def append(self, t: int, decision: bytes) -> None:
        """Round t has moved the weights."""
        if (t + 1) % self._save_every == 0:
            self._save(t + 1, self._weights.fingerprint())

    def seal(self, rounds: int, fingerprint: str, ended: bool) -> dict[str, int | None]:
        """The run stands here. Bytes of what it has become, for summary.json."""
        return {"weights_bytes": self._save(rounds, fingerprint)}

    def close(self) -> None:
        """Nothing is open."""

    def _save(self, rounds: int, fingerprint: str) -> int:
        header = json.loads(self._header.to_json())
        return save_weights(self._folder.weights, self._weights, rounds, fingerprint, header)


def _check_header(saved: Header, expected: Header) -> None:
    """A trail belongs to one recipe and one base model, but a run at a constant step size may get more rounds.

    How the task is put is said for readers.
    """
    theirs, ours = (json.loads(replace(lasting(header), task={}).to_json()) for header in (saved, expected))
    keys = [key for key in {**ours, **theirs} if theirs.get(key) != ours.get(key)]
    different = [f"{key}: {theirs.get(key)} -> {ours.get(key)}" for key in keys]
    if different:
        raise OrbitError(f"the run was begun with other settings or another base model ({'; '.join(different)})")
