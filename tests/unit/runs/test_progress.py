"""Progress: a line now and then in a log file, a bar on a terminal, nothing if quiet; times are told, not read."""

from __future__ import annotations

import builtins
import io

import pytest

from hpcfed.errors import ConfigError
from hpcfed.runs.progress import Progress, TensorBoardLog, console, duration
from tests.support.runs import scalars


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_log_file_gets_a_line_now_and_then():
    stream, clock = io.StringIO(), Clock()
    with Progress(3000, 1000, stream=stream, clock=clock) as progress:
        for t in range(1000, 3000):
            clock.now += 0.025
            progress.round(t, loss=0.5, agreement=0.75)
            if t == 1499:
                progress.metrics(t + 1, "test", {"accuracy": 0.8125}, 0.4)
        progress.note("[bold]done[/bold]")
    lines = stream.getvalue().splitlines()
    assert lines[0] == "round 1400/3000  40 rounds/s  ETA 40.0 s  loss 0.5000  agreement 75.0 %"
    assert lines[1] == "after round 1500: test accuracy 81.2 %, loss 0.4"
    assert lines[-2] == "[bold]done[/bold]"
    assert lines[-1].startswith("round 3000/3000") and lines[-1].endswith("test accuracy 81.2 %")
    assert len(lines) in (7, 8)  # every 10 s of 50, the evaluation, the note and the end


def test_a_log_file_gets_no_line_twice():
    """A job that is followed is looked at also between two rounds, and once more after its last."""
    stream, clock = io.StringIO(), Clock()
    with Progress(4, stream=stream, clock=clock) as progress:
        for t in (0, 0, 1, 1, 3, 3):
            clock.now += 10
            progress.round(t)
    assert [line.split()[1] for line in stream.getvalue().splitlines()] == ["1/4", "2/4", "4/4"]


def test_slow_rounds_are_given_in_seconds():
    stream, clock = io.StringIO(), Clock()
    with Progress(10, stream=stream, clock=clock) as progress:
        clock.now = 30
        progress.round(1)
    assert stream.getvalue().splitlines()[0] == "round 2/10  15 s/round  ETA 2 min 00 s"


def test_quiet_says_nothing():
    for stream in (io.StringIO(), Terminal()):
        clock = Clock()
        with Progress(10, quiet=True, stream=stream, clock=clock) as progress:
            for t in range(10):
                clock.now += 100
                progress.round(t, loss=1.0)
            progress.metrics(10, "test", {"accuracy": 0.5}, 1.0)
            progress.note("hello")
        assert stream.getvalue() == ""


def test_terminal_gets_a_bar_that_is_redrawn_rarely(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "150")
    stream, clock = Terminal(), Clock()
    with Progress(10_000, stream=stream, clock=clock) as progress:
        progress.round(0, loss=0.25)
        before = len(stream.getvalue())
        for t in range(1, 99):
            clock.now += 0.002
            progress.round(t, loss=0.25)
        assert len(stream.getvalue()) == before
        clock.now += 0.2
        progress.round(99, loss=0.25)
        assert "100/10000" in stream.getvalue() and "ETA" in stream.getvalue() and "0.2500" in stream.getvalue()
        progress.metrics(100, "validation", {"accuracy": 0.5}, 0.7)
    assert "validation accuracy 50.0 %" in stream.getvalue()


def test_a_run_without_rounds_and_a_run_that_raises_end_quietly():
    stream = io.StringIO()
    with Progress(0, stream=stream, clock=Clock()):
        pass
    with pytest.raises(ZeroDivisionError), Progress(9, stream=stream, clock=Clock()) as progress:
        progress.round(0)
        raise ZeroDivisionError
    assert stream.getvalue().splitlines()[-1].startswith("round 1/9")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0, "0.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (3599.6, "1 h 00 min"),
        (11_220, "3 h 07 min"),
    ],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_tensorboard(tmp_path, monkeypatch: pytest.MonkeyPatch):
    with TensorBoardLog(tmp_path / "board") as board:
        board.scalar("loss", 0.5, 3)
        board.scalar("test/accuracy", 0.25, 4)
    assert scalars(tmp_path / "board") == {"loss": [(3, 0.5)], "test/accuracy": [(4, 0.25)]}

    real = builtins.__import__

    def without(name: str, *args: object, **more: object) -> object:
        if "tensorboard" in name:
            raise ImportError(name)
        return real(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match="pip install tensorboard"):
        TensorBoardLog(tmp_path)


def test_a_run_that_goes_on_is_timed_from_where_it_stands():
    clock = Clock()
    progress = Progress(100, 90, stream=io.StringIO(), clock=clock)
    assert progress.status(5.0) == ""
    clock.now = 10
    progress.round(94)
    assert progress.status(10.0) == "2 s/round  ETA 10.0 s"
    progress.round(99)
    assert progress.status(10.0) == "1 rounds/s  took 10.0 s"


def test_what_is_printed_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TERM", "xterm")
    text = "h.[0-9].* [red]x[/red] :smile: http://a " + "long " * 40
    for stream, plain in ((io.StringIO(), False), (io.StringIO(), True), (Terminal(), True)):
        console(stream, plain).print(text, style="bold", soft_wrap=True)
        assert stream.getvalue() == text + "\n"
    assert console(io.StringIO()).width == 120


def test_an_evaluation_tells_all_metrics():
    stream = io.StringIO()
    with Progress(10, stream=stream) as progress:
        progress.metrics(0, "test", {"accuracy": 0.5, "macro-f1": 0.25}, 1.0, majority=0.75)
    assert stream.getvalue() == "after round 0: test accuracy 50.0 %, macro-f1 25.0 %, majority 75.0 %, loss 1\n"
