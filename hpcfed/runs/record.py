"""What a run puts on record, and what it shows of itself. Every rank has a Record; only rank 0's does anything.

Record          of the other ranks: nothing is written, nothing is shown
FolderRecord    of rank 0: run folder, trail (what the run goes on from), progress, the user's callbacks
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self

from ..errors import OrbitError
from .folder import RunFolder
from .progress import Progress, TensorBoardLog

Callback = Callable[[dict[str, Any]], object]  # of the user, called with a line of metrics.jsonl

#: What a line of metrics.jsonl says of a score; an older run's says less.
SCORED = ("metric", "value", "loss", "examples", "values", "majority", "worst", "spread")


class Trail(Protocol):
    """What a run goes on from.  rounds: behind it.  decisions: one a round; dense: none.  notes: for the user."""

    rounds: int
    decisions: list[bytes]
    notes: list[str]

    def append(self, t: int, decision: bytes) -> None:
        """Round t is decided so; a trail of weights is told after they have moved."""

    def seal(self, rounds: int, fingerprint: str, ended: bool) -> dict[str, int | None]:
        """The run stands after so many rounds; ended: for good. What it has become, in bytes, for summary.json."""

    def close(self) -> None:
        """Nothing more is appended."""


@dataclass
class Past:
    """What earlier rounds left: how many, their seconds, bytes and scores, and how often the run was taken up again.

    scores: rounds done -> split -> what its line of metrics.jsonl says of it (SCORED).
    pairs: agreement.pairs of the logged rounds.
    abstentions: ballots that were none.  abstainers: ids of the clients whose they were.
    """

    rounds: int = 0
    restarts: int = 0
    seconds: float = 0.0
    payload_bytes: int = 0
    scores: dict[int, dict[str, dict[str, Any]]] = field(default_factory=dict)
    pairs: list[float] = field(default_factory=list)
    abstentions: int = 0
    abstainers: list[int] = field(default_factory=list)

    def to_json(self) -> bytes:
        """For the other rows."""
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def from_json(raw: bytes) -> Past:
        """What `to_json` wrote."""
        past = Past(**json.loads(raw))
        past.scores = {int(t): scores for t, scores in past.scores.items()}
        return past


class Record:
    """Of a rank other than 0: does nothing.  notes: for the user, before the first round."""

    notes: Sequence[str] = ()

    def open(
        self, trail: Callable[[RunFolder], Trail], digest: str, digests: Mapping[str, str],
        holdings: Callable[[], Any], splits: Iterable[str], read: Mapping[str, Any] | None = None,
    ) -> Past | None:  # fmt: skip
        """What the run goes on from is there from now on; row 0: what earlier rounds left.

        digest: of the training data and of who holds which.  digests: of what else must stay as it is, by what it is.
        holdings: makes the PartitionReport, or None where nobody may know.  splits: that are evaluated.  read: of each
        split, how many rows were read, kept and left out.  Raises OrbitError and RunFolderError.
        """
        return None

    def decisions(self) -> bytes | None:
        """Row 0: the decisions of all rounds on the trail, one after the other."""
        return None

    def begin(self, total: int, start: int, tensorboard: bool) -> None:
        """Rounds `start` to `total` follow."""

    def append(self, t: int, decision: bytes) -> None:
        """Round t is decided so."""

    def note(self, text: str) -> None:
        """A line for the user."""

    def round(self, record: Mapping[str, Any], due: bool) -> None:
        """A round is done.  record: its line of metrics.jsonl, which is written if it is due."""

    def score(self, record: Mapping[str, Any]) -> None:
        """A split was evaluated.  record: its line of metrics.jsonl."""

    def log(self, record: Mapping[str, Any]) -> None:
        """Another line of metrics.jsonl."""

    def records(self) -> list[dict[str, Any]]:
        """What is in metrics.jsonl so far."""
        return []

    def seal(self, rounds: int, fingerprint: str, ended: bool) -> dict[str, int | None]:
        """The run stands here; ended: for good. What it has become, in bytes, for summary.json."""
        return {}

    def summary(self, summary: Mapping[str, Any]) -> None:
        """What summary.json says."""

    def close(self) -> None:
        """The run folder is free for others."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Trail and progress end here."""


class FolderRecord(Record):
    """Of row 0.  quiet: show nothing.  on_round, on_score: called with each round's and each evaluation's record."""

    def __init__(
        self,
        folder: RunFolder,
        quiet: bool = False,
        on_round: Callback | None = None,
        on_score: Callback | None = None,
    ) -> None:
        self.folder, self._quiet, self._on_round, self._on_score = folder, quiet, on_round, on_score
        self.notes: list[str] = []
        self._trail: Trail | None = None
        self._progress = Progress(0, quiet=True)
        self._board: TensorBoardLog | None = None
        self._open = ExitStack()

    @property
    def trail(self) -> Trail:
        """What the run goes on from, once it is open."""
        assert self._trail, "open comes first"
        return self._trail

    def open(
        self, trail: Callable[[RunFolder], Trail], digest: str, digests: Mapping[str, str],
        holdings: Callable[[], Any], splits: Iterable[str], read: Mapping[str, Any] | None = None,
    ) -> Past:  # fmt: skip
        """The trail, begun or gone on with, and what the earlier rounds left in metrics.jsonl."""
        folder = self.folder
        if folder.resumed and (before := folder.read_partition().get("digest")) not in (None, digest):
            raise OrbitError(
                f"the training data, or who holds which, changed since the run began ({before} -> {digest})"
            )
        if folder.resumed:
            self._check_unchanged(digests)
        report = holdings()
        self._trail = trail(folder)
        self._open.callback(self.trail.close)
        folder.go_on()
        told = {"read": dict(read or {}), "digest": digest, "digests": dict(digests)}
        folder.write_partition((report.data() if report else {}) | told)
        self.notes = [*folder.notes, *([report.line()] if report else []), *self.trail.notes]
        if not folder.resumed:
            return Past()
        folder.rewind(self.trail.rounds)
        self.notes.append(f"resumed after round {self.trail.rounds}")
        return _recall(folder.records(), self.trail.rounds, folder.restarts, set(splits))

    def _check_unchanged(self, digests: Mapping[str, str]) -> None:
        """OrbitError if anything of it is not what it was when the run began."""
        known = self.folder.read_partition().get("digests")
        if known is None:
            text = (
                "the run is older than digests of the data it is evaluated on: nobody knows whether they have changed"
            )
            self.folder.notes.append(text)
        for what, now in digests.items():
            if (before := (known or {}).get(what, now)) != now:
                raise OrbitError(
                    f"{what} changed since the run began ({before} -> {now}), so what follows could not be compared "
                    "with what was; put back what was there, or choose another --out"
                )

    def decisions(self) -> bytes:
        """The decisions of all rounds on the trail, one after the other."""
        return b"".join(self.trail.decisions)

    def begin(self, total: int, start: int, tensorboard: bool) -> None:
        """Rounds `start` to `total` follow."""
        if tensorboard:
            self._board = self._open.enter_context(TensorBoardLog(self.folder.path / "tensorboard"))
        self._progress = self._open.enter_context(Progress(total, start, self._quiet))

    def append(self, t: int, decision: bytes) -> None:
        """Round t is decided so."""
        self.trail.append(t, decision)

    def note(self, text: str) -> None:
        """A line for the user."""
        self._progress.note(text)

    def round(self, record: Mapping[str, Any], due: bool) -> None:
        """Show a round, and write its line if it is due."""
        loss, agreement = record["loss"], record.get("agreement", float("nan"))
        self._progress.round(record["t"] - 1, loss=loss, agreement=agreement)
        if due:
            self.folder.log(record)
            if self._board:
                self._board.scalar("loss", loss, record["t"])
                self._board.scalar("agreement", agreement, record["t"])
        if self._on_round:
            self._on_round(dict(record))

    def score(self, record: Mapping[str, Any]) -> None:
        """Show an evaluation, and write its line."""
        t, split, metric = record["t"], record["split"], record["metric"]
        values = record.get("values") or {metric: record["value"]}
        self._progress.metrics(t, split, values, record["loss"], record.get("majority"))
        self.folder.log(record)
        if self._board:
            for name, value in values.items():
                self._board.scalar(f"{split}/{name}", value, t)
            self._board.scalar(f"{split}/loss", record["loss"], t)
        if self._on_score:
            self._on_score(dict(record))

    def log(self, record: Mapping[str, Any]) -> None:
        """Another line of metrics.jsonl."""
        self.folder.log(record)

    def records(self) -> list[dict[str, Any]]:
        """What is in metrics.jsonl so far."""
        return self.folder.records()

    def seal(self, rounds: int, fingerprint: str, ended: bool) -> dict[str, int | None]:
        """The run stands here; ended: for good. What it has become, in bytes."""
        return self.trail.seal(rounds, fingerprint, ended)

    def summary(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json."""
        self.folder.write_summary(summary)

    def close(self) -> None:
        """The run folder is free for others."""
        self.folder.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)


def _recall(records: Iterable[Mapping[str, Any]], rounds: int, restarts: int, splits: set[str]) -> Past:
    """Time spent, bytes sent and scores found in the `rounds` before the interruption, from the lines of metrics.jsonl.

    Rounds after the last logged one are taken to be like those before it; a score of some splits only is forgotten.
    """
    past = Past(rounds, restarts)
    for record in records:
        if "split" in record and isinstance(record.get("loss"), float):
            score = {key: record[key] for key in SCORED if key in record}
            past.scores.setdefault(record["t"], {})[record["split"]] = score
        elif "wire_payload_bytes" in record:
            pairs = record.get("pairs")
            past.pairs.append(pairs if isinstance(pairs, float) else float("nan"))
            past.seconds = record["seconds"] * rounds / record["t"]
            past.abstentions = round(record.get("abstentions", 0) * rounds / record["t"])
            past.abstainers += record.get("abstainers", [])
            past.payload_bytes = record["wire_payload_bytes"] * rounds // record["t"]
    past.scores = {t: scores for t, scores in past.scores.items() if splits <= scores.keys()}
    return past
