"""What the user sees of a run that goes on: a progress bar on a terminal, a line now and then in a log file.

Promise  `Progress.round` may be called hundreds of times a second: it costs a clock reading and redraws rarely.
         Everything here works without a terminal, at a fixed width, in plain text.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from ..errors import ConfigError

REDRAW_SECONDS = 0.2  # on a terminal
LINE_SECONDS = 10.0  # in a log file
LOG_WIDTH = 120


class Progress:
    """Progress of a run from round `start` to `total`; a context manager.

    quiet: show nothing at all.  stream: default stderr, so that stdout holds results only.  clock: seconds, monotonic.
    """

    def __init__(
        self,
        total: int,
        start: int = 0,
        quiet: bool = False,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total, self._start, self._done, self._quiet, self._clock = total, start, start, quiet, clock
        self._console = console(stream or sys.stderr)
        self._period = REDRAW_SECONDS if self._console.is_terminal else LINE_SECONDS
        self._began = self._shown = clock()
        self._loss = self._agreement = math.nan
        self._metric = ""
        self._told = (start, "")  # rounds and evaluation of the last line in a log
        self._bar: Bar | None = None
        if self._console.is_terminal and not quiet:
            columns = (
                TextColumn("round"),
                BarColumn(None),
                MofNCompleteColumn(),
                TextColumn("{task.fields[status]}", markup=False),
            )
            self._bar = Bar(*columns, console=self._console, auto_refresh=False, expand=True)
            self._task = self._bar.add_task("", total=total, completed=start, status="")

    def round(self, t: int, loss: float = math.nan, agreement: float = math.nan) -> None:
        """Round t (from 0) is done; loss: mean over its clients; agreement: share of votes with the majority."""
        self._done, self._loss, self._agreement = t + 1, loss, agreement
        if self._quiet:
            return
        now = self._clock()
        if now - self._shown >= self._period:
            self._show(now)

    def metrics(
        self, t: int, split: str, values: Mapping[str, float], loss: float, majority: float | None = None
    ) -> None:
        """An evaluation after t rounds.  values: fractions, the main metric first.  majority: beside accuracy."""
        told = [f"{metric} {percent(value)}" for metric, value in values.items()]
        self._metric = f"{split} {told[0]}"
        beside = [] if majority is None else [f"majority {percent(majority)}"]
        self.note(f"after round {t}: {', '.join([self._metric, *told[1:], *beside])}, loss {loss:.4g}")

    def note(self, text: str) -> None:
        """One line that stays."""
        if not self._quiet:
            self._console.print(text, soft_wrap=True)

    def _show(self, now: float) -> None:
        self._shown = now
        status = self.status(now)
        if self._bar is None:
            if self._told != (self._done, self._metric):  # a job is looked at also while its rounds stand still
                self._told = (self._done, self._metric)
                self.note(f"round {self._done}/{self._total}  {status}")
        else:
            self._bar.update(self._task, completed=self._done, status=status, refresh=True)

    def status(self, now: float) -> str:
        """Rate, time left, loss, agreement and the last evaluation, as far as they are known."""
        rate = (self._done - self._start) / max(now - self._began, 1e-9)  # evaluations included: so is what is to come
        parts, left = list[str](), self._total - self._done
        if rate > 0:
            speed = f"{rate:.3g} rounds/s" if rate >= 1 else f"{1 / rate:.3g} s/round"
            parts = [speed, f"ETA {duration(left / rate)}" if left else f"took {duration(now - self._began)}"]
        if math.isfinite(self._loss):
            parts.append(f"loss {self._loss:.4f}")
        if math.isfinite(self._agreement):
            parts.append(f"agreement {percent(self._agreement)}")
        if self._bar is None:  # on a terminal the evaluation's own line stands right above
            parts.append(self._metric)
        return "  ".join(parts).rstrip()

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._done > self._start and not self._quiet:
            self._show(self._clock())
        if self._bar is not None:
            self._bar.stop()


class TensorBoardLog:
    """Scalars for TensorBoard, written to `folder`; a context manager. ConfigError if tensorboard is not installed."""

    def __init__(self, folder: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ConfigError("TensorBoard logging needs the tensorboard package: pip install tensorboard") from None
        self._writer = SummaryWriter(str(folder))

    def scalar(self, name: str, value: float, t: int) -> None:
        """One point of the curve `name`, after t rounds."""
        self._writer.add_scalar(name, value, t)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def percent(fraction: float | None) -> str:
    """0.8125 as 81.2 %."""
    return "-" if fraction is None else f"{100 * fraction:.1f} %"


def duration(seconds: float | None) -> str:
    """Seconds as 12.3 s, 4 min 05 s or 3 h 07 min."""
    if seconds is None:
        return "-"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def console(stream: TextIO, plain: bool = False) -> Console:
    """What writes to `stream` as it is read: on a terminal, or in a file."""
    # Without a terminal rich assumes 80 columns, or whatever COLUMNS says in the job's environment.
    # No markup: recipe patterns such as h.[0-9].* and names of models and runs are not ours.
    width = None if stream.isatty() else LOG_WIDTH
    # plain: no escape codes. mpirun gives ranks a pseudo-terminal as stdout, also when its own output is a file.
    force = False if plain else None
    return Console(file=stream, width=width, force_terminal=force, markup=False, emoji=False, highlight=False)
