from __future__ import annotations

import builtins
import io
import subprocess
import sys

import pytest

from hpcfed.cli.tables import comparison_table, count, orbit_table, score_table, size, summary_table
from hpcfed.errors import ConfigError
from hpcfed.orbit import load_any, seal
from hpcfed.runs.progress import Progress, TensorBoardLog, duration, percent
from hpcfed.tasks.evaluate import Score
from tests.support.orbits import make
from tests.support.runs import summary


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
                progress.metric(t + 1, "test", "accuracy", 0.8125, 0.4)
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
            progress.metric(10, "test", "accuracy", 0.5, 1.0)
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
        progress.metric(100, "validation", "accuracy", 0.5, 0.7)
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
    ("nbytes", "text"), [(None, "-"), (0, "0 B"), (999, "999 B"), (1250, "1.25 kB"), (999_999, "1 MB"), (26e9, "26 GB")]
)
def test_size(nbytes, text):
    assert size(nbytes) == text


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


def test_percent_and_count():
    assert (percent(0.8125), percent(None), count(12345), count(None)) == ("81.2 %", "-", "12,345", "-")


def test_summary_table_also_of_unknown_figures():
    stream = io.StringIO()
    summary_table(summary(model="[red]m", wire_payload_bytes=1250), stream)
    text = stream.getvalue()
    for part in ("[red]m", "50.0 % -> 75.0 %", "1.25 kB", "12.5 s", "1 GB", "f" * 32, "finished after 100 rounds"):
        assert part in text
    stream = io.StringIO()
    summary_table(dict.fromkeys(summary()), stream)
    assert "- -> -" in stream.getvalue()


def test_comparison_table():
    row = {
        "run": "a", "algorithm": "feedsign", "model": "opt", "metric": "accuracy", "before": 0.5, "after": 0.75,
        "bits": 1, "down": 1, "uplink_bits": 10_001, "wire_bytes": 40_000, "seconds": 90.0, "memory": 2 * 10**9,
    }  # fmt: skip
    stream = io.StringIO()
    comparison_table([row, {**dict.fromkeys(row), "run": "empty"}], stream)
    for part in ("50.0 %", "75.0 %", "1.25 kB", "40 kB", "1 min 30 s", "2 GB", "empty"):
        assert part in stream.getvalue()
    assert max(map(len, stream.getvalue().splitlines())) <= 120


def test_score_table():
    stream = io.StringIO()
    score_table({"test": Score(0.5, 0.25, 872, "F1")}, stream)
    assert stream.getvalue().split()[-5:] == ["test", "872", "50.0", "%", "0.2500"] and " F1 " in stream.getvalue()


def test_orbit_table_shows_strangers_text_as_text(tmp_path):
    header = make(train_only=["h.[0-9].*", "\x1b[31mred"])
    seal(tmp_path / "o", header, [b"\1"] * 3, "f" * 32)
    stream = io.StringIO()
    orbit_table(load_any(tmp_path / "o"), stream)
    text = stream.getvalue()
    assert "h.[0-9].*" in text and r"\x1b[31mred" in text and "\x1b" not in text
    assert "f" * 32 in text and "facebook/opt-125m" in text and "cosine" in text


def test_tensorboard(tmp_path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("tensorboard")
    with TensorBoardLog(tmp_path / "board") as board:
        board.scalar("loss", 0.5, 3)
    assert any((tmp_path / "board").iterdir())

    real = builtins.__import__

    def without(name: str, *args: object, **more: object) -> object:
        if "tensorboard" in name:
            raise ImportError(name)
        return real(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match="pip install tensorboard"):
        TensorBoardLog(tmp_path)


def test_tables_need_no_torch():
    code = "import sys, hpcfed.cli.tables, hpcfed.runs.folder; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
