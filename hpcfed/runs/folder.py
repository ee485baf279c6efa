"""The run folder: who may write there, and how; read.py has its files and what can be read from them.

Promise  No run is ever overwritten or deleted: --force moves the old one to a numbered folder beside it, or where that
         cannot be, in it. Two live runs never share a folder. Whole files are replaced in one step, so a crash leaves
         the old or the new one.

Only row 0 has a run folder. What is shown on the terminal meanwhile is progress.py's.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import math
import os
import socket
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..atomic import sync_folder, write_atomic
from ..errors import RunFolderError
from ..orbit import JOURNAL, ORBIT, WEIGHTS
from .env import env_changes
from .read import (
    ENDED,
    ENV,
    LOCK,
    METRICS,
    PARTITION,
    RECIPE,
    REQUIRED_KEYS,
    STATUSES,
    SUMMARY,
    read_json,
    read_metrics,
    recipe_differences,
    wants_more,
)

FORMAT = "hpcfed-run"  # in env.json: tells a run that died before its first round from files that are not ours
# In the order in which --force moves them: summary.json last, so that a crash in between leaves no half-known run.
FILES = (ORBIT, WEIGHTS, JOURNAL, METRICS, PARTITION, RECIPE, ENV, SUMMARY)
GO_ON = "go on with --resume"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class RunFolder:
    """A folder that this process, alone, writes a run to.

    path, journal, orbit, weights: Path.  resumed: a journal or weights are there and the run goes on, which it has done
    `restarts` times.  notes: what the user should know.
    """

    def __init__(self, path: Path, lock: int) -> None:
        self.path, self._lock = path, lock
        self.journal, self.orbit, self.weights = path / JOURNAL, path / ORBIT, path / WEIGHTS
        self.resumed, self.restarts, self.notes = False, 0, list[str]()
        self._metrics: int | None = None
        self._env, self._recipe = "", ""

    @staticmethod
    def create(
        path: str | Path,
        recipe_toml: str,
        env: Mapping[str, Any],
        force: bool = False,
        resume: bool = False,
        allow: Sequence[str] = (),
    ) -> RunFolder:
        """Lock the folder, decide between new, resumed and refused, and write recipe.toml and env.json.

        allow: patterns of dotted recipe keys ("eval_every", "log.*") that may differ between a run and its resumption.
        Raises RunFolderError when the folder is in use, finished, interrupted (without `resume`), of another recipe,
        holds files that are no run, or cannot be written.
        """
        path = Path(path)
        if force and resume:
            raise RunFolderError(f"{path}: --force starts over and --resume goes on; give one of them")
        if path.is_symlink() and not path.exists():
            raise RunFolderError(
                f"{path}: links to {path.readlink()}, which is not there; make it, or take another --out"
            )
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock, note = _take_lock(path)
        except (FileExistsError, NotADirectoryError):
            raise RunFolderError(f"{path}: is a file or lies below one; choose another --out") from None
        except OSError as error:
            raise _unwritable(path, error) from None
        folder = RunFolder(path, lock)
        folder.notes += note
        try:
            folder._enter(recipe_toml, env, force, resume, allow)
        except BaseException as error:
            folder.close()
            if isinstance(error, OSError):
                raise _unwritable(path, error) from None
            raise
        return folder

    def _enter(self, recipe_toml: str, env: Mapping[str, Any], force: bool, resume: bool, allow: Sequence[str]) -> None:
        known = {name for name in FILES if os.path.lexists(self.path / name)}
        earlier: list[Any] = []
        if known & {SUMMARY, JOURNAL, WEIGHTS}:
            if force:
                self.notes.append(f"the old run was moved to {self._move_aside(known)}")
            else:
                self._check_resumable(known, resume, recipe_toml)
                _check_same_recipe(self.path / RECIPE, recipe_toml, allow)
                self.resumed = True
                old = read_json(self.path / ENV) if ENV in known else {}
                earlier = [*old.pop("earlier", []), old]
                self.restarts = len(earlier)
                self.notes += env_changes(old, env)
        elif known:  # a run that died before its first round is new again
            self._check_ours(known)
            (self.path / METRICS).unlink(missing_ok=True)
        self._env, self._recipe = _to_json({"format": FORMAT, **env, "earlier": earlier}, indent=2), recipe_toml
        if not self.resumed:
            self._write_beginning()

    def go_on(self) -> None:
        """A run that is resumed goes on, for nothing speaks against it: from now on its files say so.

        A finished run that gets more rounds is interrupted from now on; its sealed orbit stays till the next one is.
        """
        if self.resumed:
            try:
                self._write_beginning()
            except OSError as error:
                raise _unwritable(self.path, error, GO_ON) from None
            if (self.path / SUMMARY).exists() and (summary := read_json(self.path / SUMMARY))["status"] in ENDED:
                self.write_summary(summary | {"status": "interrupted"})

    def _write_beginning(self) -> None:
        write_atomic(self.path / ENV, self._env)
        write_atomic(self.path / RECIPE, self._recipe)

    def _check_ours(self, known: set[str]) -> None:
        try:
            ours = ENV in known and ORBIT not in known and read_json(self.path / ENV).get("format") == FORMAT
        except RunFolderError:
            ours = False
        if not ours:
            raise RunFolderError(f"{self.path}: holds {', '.join(sorted(known))} but no run; choose another --out")

    def _check_resumable(self, known: set[str], resume: bool, recipe_toml: str) -> None:
        summary = read_json(self.path / SUMMARY) if SUMMARY in known else {}
        status, done = summary.get("status", "interrupted"), summary.get("rounds")
        if status in ENDED and not (resume and wants_more(summary, tomllib.loads(recipe_toml).get("rounds"))):
            more = f" (for more rounds: --resume --set rounds=MORE than {done})" if status == "finished" else ""
            raise RunFolderError(
                f"{self.path}: holds a finished run, and --resume has nothing to do there{more}; "
                "choose another --out, or --force to start over (the old run is moved aside, not deleted)"
            )
        if not resume:
            raise RunFolderError(
                f"{self.path}: holds an unfinished run (status {status}); "
                "pass --resume to go on, or --force to start over (the old run is moved aside, not deleted)"
            )
        if not known & {JOURNAL, WEIGHTS}:
            raise RunFolderError(f"{self.path}: holds an unfinished run without a journal to go on from; use --force")

    def _move_aside(self, known: set[str]) -> Path:
        """Move the files of the old run to a new folder: NAME.old-N beside this one, else old-N in it.

        Else: this folder is a mount point (a container's volume), or the one that it lies in is not writable.
        """
        base = self.path.resolve()
        try:
            return self._move_to(known, lambda n: base.with_name(f"{base.name}.old-{n}"))
        except (OSError, ValueError):
            return self._move_to(known, lambda n: base / f"old-{n}")

    def _move_to(self, known: set[str], place: Callable[[int], Path]) -> Path:
        """All files or none; where, of the places from 1 on, nothing is yet."""
        for n in range(1, 10_000):
            aside, moved = place(n), list[str]()
            try:
                aside.mkdir()
            except FileExistsError:
                continue
            try:
                for name in FILES:
                    if name in known:
                        (self.path / name).rename(aside / name)
                        moved.append(name)
            except OSError:
                for name in reversed(moved):
                    (aside / name).rename(self.path / name)
                aside.rmdir()
                raise
            sync_folder(aside)
            return aside
        raise RunFolderError(f"{self.path}: 9,999 old runs lie beside it already; remove some")

    def records(self) -> list[dict[str, Any]]:
        """What is in metrics.jsonl so far."""
        return read_metrics(self.path)

    def rewind(self, rounds: int) -> None:
        """Drop the lines of metrics.jsonl with t > rounds (and a torn last line): those rounds will be run again."""
        assert self._metrics is None, "rewind comes before the first log"
        kept = [record for record in read_metrics(self.path) if record["t"] <= rounds]
        try:
            write_atomic(self.path / METRICS, "".join(_to_json(record) + "\n" for record in kept))
        except OSError as error:
            raise _unwritable(self.path / METRICS, error, GO_ON) from None

    def log(self, record: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl (NaN and infinity become null); `record` has a "t": rounds done so far."""
        assert isinstance(record.get("t"), int), "a metrics line needs its round t"
        raw = (_to_json(record) + "\n").encode()
        try:
            if self._metrics is None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
                self._metrics = os.open(self.path / METRICS, flags, 0o666)
            if os.write(self._metrics, raw) != len(raw):  # only a full disk does this; rewind drops the torn line
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise _unwritable(self.path / METRICS, error, GO_ON) from None

    def write_partition(self, data: Mapping[str, Any]) -> None:
        """Replace partition.json in one step; data: PartitionReport.data()."""
        try:
            write_atomic(self.path / PARTITION, _to_json(data))
        except OSError as error:
            raise _unwritable(self.path / PARTITION, error) from None

    def read_partition(self) -> dict[str, Any]:
        """What write_partition wrote; empty if there is none."""
        return read_json(self.path / PARTITION) if (self.path / PARTITION).exists() else {}

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Replace summary.json in one step; `summary` has all REQUIRED_KEYS, unknown figures as None."""
        missing = [key for key in REQUIRED_KEYS if key not in summary]
        assert not missing, f"summary lacks {missing}"
        assert summary["status"] in STATUSES, summary["status"]
        try:
            write_atomic(self.path / SUMMARY, _to_json(summary, indent=2))
        except OSError as error:
            raise _unwritable(self.path / SUMMARY, error, GO_ON) from None

    def close(self) -> None:
        """Give the folder up; a second call does nothing."""
        if self._metrics is not None:
            os.close(self._metrics)
            self._metrics = None
        if self._lock >= 0:
            with contextlib.suppress(OSError):
                (self.path / LOCK).unlink()  # while still locked: see _take_lock
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _take_lock(path: Path) -> tuple[int, list[str]]:
    """Descriptor of the locked lock file (which dies with the process), and notes."""
    file = path / LOCK
    notes: list[str] = []
    while True:
        fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                owner = os.pread(fd, 200, 0).decode(errors="replace").strip() or "a run that is just starting"
                os.close(fd)
                raise RunFolderError(f"{path}: in use by {owner}; wait for it, or choose another --out") from None
            notes = [f"{path}: this file system has no locks ({error.strerror}); do not start a second run here"]
        try:  # the owner before us may have removed the file between our open and our lock: then ours locks nothing
            same = os.fstat(fd).st_ino == file.stat().st_ino
        except FileNotFoundError:
            same = False
        if same:
            break
        os.close(fd)
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    return fd, notes


def _unwritable(path: Path, error: OSError, cure: str = "choose another --out") -> RunFolderError:
    first = "free space" if error.errno in FULL else "let this user write there"
    link = "and " if cure == GO_ON else "or "
    return RunFolderError(f"{path}: cannot write the run here: {error.strerror}; {first}, {link}{cure}")


def _plain(value: Any) -> Any:
    """What JSON can say: arrays' scalars as Python's, non-finite floats as null, other objects as text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    return _plain(value.item()) if hasattr(value, "item") else str(value)


def _to_json(value: Mapping[str, Any], indent: int | None = None) -> str:
    return json.dumps(_plain(value), indent=indent, allow_nan=False)


def _check_same_recipe(path: Path, recipe_toml: str, allow: Sequence[str]) -> None:
    try:
        old = path.read_text(encoding="utf-8")
        schedule = tomllib.loads(old).get("algorithm", {}).get("schedule", "constant")
        if schedule == "constant":  # else the step size of the rounds that were run depends on how many are to come
            allow = (*allow, "rounds")
        differences = recipe_differences(old, recipe_toml, allow)
    except OSError as error:
        raise RunFolderError(f"{path}: cannot read it, so cannot --resume: {error.strerror}") from None
    except ValueError as error:
        raise RunFolderError(f"{path}: damaged, so cannot --resume: {error}") from None
    if len(differences) == 1 and differences[0].startswith("rounds: "):
        replayed = f": hpcfed orbit replay {path.parent} --base MODEL --out FOLDER, then --set model.name=FOLDER"
        how = replayed if (path.parent / JOURNAL).exists() else ""
        raise RunFolderError(
            f"{path.parent}: {differences[0]}: with algorithm.schedule={schedule!r} the steps that were made depend on "
            f"the number of rounds; keep it, or begin another run from the model that this one ends with{how}"
        )
    if differences:
        raise RunFolderError(
            f"{path.parent}: --resume with another recipe would change the result: {'; '.join(differences)}; "
            "use the old values, or choose another --out"
        )
