"""The tables that commands print: figures by hand, unknown ones as a dash, strangers' text as text."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys

import pytest

from hpcfed.cli.tables import comparison_table, count, orbit_table, score_json, score_table, size, summary_table
from hpcfed.orbit import load_any, seal
from hpcfed.runs.progress import percent
from hpcfed.tasks.evaluate import Score
from tests.support.orbits import make
from tests.support.runs import made_up_summary


@pytest.mark.parametrize(
    ("nbytes", "text"), [(None, "-"), (0, "0 B"), (999, "999 B"), (1250, "1.25 kB"), (999_999, "1 MB"), (26e9, "26 GB")]
)
def test_size(nbytes, text):
    assert size(nbytes) == text


def test_percent_and_count():
    assert (percent(0.8125), percent(None), count(12345), count(None)) == ("81.2 %", "-", "12,345", "-")


def test_summary_table_also_of_unknown_figures():
    stream = io.StringIO()
    summary_table(made_up_summary(model="[red]m", wire_payload_bytes=1250), stream)
    text = stream.getvalue()
    for part in ("[red]m", "50.0 % -> 75.0 %", "1.25 kB", "12.5 s", "1 GB", "f" * 32, "finished after 100 rounds"):
        assert part in text
    stream = io.StringIO()
    summary_table(dict.fromkeys(made_up_summary()), stream)
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


def test_a_score_table_has_a_column_for_all_that_is_known():
    stream = io.StringIO()
    both = {"accuracy": 0.5, "macro-f1": 0.25}
    scores = {
        "test": Score(0.5, 0.25, 872, "accuracy", both, majority=0.75),
        "dev": Score(0.5, math.inf, 8, "accuracy", both, majority=0.625, worst=0.125, spread=0.1),
    }
    score_table(scores, stream)
    head, dev = (line.split() for line in stream.getvalue().splitlines() if line.split()[:1] in (["split"], ["dev"]))
    assert " ".join(head) == "split examples accuracy majority macro-f1 worst client spread loss"
    assert " ".join(dev) == "dev 8 50.0 % 62.5 % 25.0 % 12.5 % 10.0 % inf"
    told = json.loads(score_json(scores))
    assert told["test"] == {
        "value": 0.5, "loss": 0.25, "examples": 872, "metric": "accuracy", "values": both, "majority": 0.75,
    }  # fmt: skip
    assert told["dev"]["loss"] is None and told["dev"]["worst"] == 0.125


def test_a_summary_table_has_a_line_a_metric():
    more = {"metrics_before": {"accuracy": 0.5, "em": 0.25}, "metrics_after": {"accuracy": 0.75, "em": 0.5}}
    stream = io.StringIO()
    summary_table(made_up_summary(**more, majority=0.625, worst_before=0.125, worst_after=0.25), stream)
    text = " ".join(stream.getvalue().split())
    assert "accuracy 50.0 % -> 75.0 % (majority 62.5 %) em 25.0 % -> 50.0 % worst client 12.5 % -> 25.0 % loss" in text


def test_orbit_table_shows_strangers_text_as_text(tmp_path):
    header = make(train_only=["h.[0-9].*", "\x1b[31mred"])
    seal(tmp_path / "o", header, [b"\1"] * 3, "f" * 32)
    stream = io.StringIO()
    orbit_table(load_any(tmp_path / "o"), stream)
    text = stream.getvalue()
    assert "h.[0-9].*" in text and r"\x1b[31mred" in text and "\x1b" not in text
    assert "f" * 32 in text and "facebook/opt-125m" in text and "cosine" in text


def test_tables_need_no_torch():
    code = "import sys, hpcfed.cli.tables, hpcfed.runs.folder; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
