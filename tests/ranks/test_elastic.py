"""torchrun starts killed ranks anew: the run goes on by itself and ends as if nobody had been killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpcfed.config import load_recipe, to_toml
from hpcfed.orbit import read_journal
from hpcfed.runs.folder import RunFolder
from hpcfed.runs.read import read_metrics, read_summary
from hpcfed.train.start import earlier_attempts, note_begun
from hpcfed.transport.base import Transport
from hpcfed.transport.launch import discover
from tests.support.command import ok
from tests.support.harness import free_port, launch, run_ranks
from tests.support.torchrun import ONE_HOST, ended, job, kill, rounds

ROUNDS = 120
VOTES = [f"rounds={ROUNDS}", "clients.batch=16", "eval_every=40"]
GRADIENTS = ["algorithm.name=fedsgd", "rounds=60", "clients.batch=16", "save_every=7"]


def parts(settings: list[str]) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


def argv(settings: list[str], out: Path, *more: str) -> list[str]:
    return ["-m", "hpcfed", "train", "digits", "--out", str(out), *more, *parts(settings)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a run of VOTES in which nobody is killed."""
    folder = tmp_path_factory.mktemp("undisturbed") / "alone"
    ok("train", "digits", *parts(VOTES), "--out", folder, "--set", "mesh.threads=1")
    return folder


def test_killed_twice(tmp_path: Path, alone: Path) -> None:
    out = tmp_path / "run"
    with job(ONE_HOST, argv([*VOTES, "mesh.threads=1"], out)) as (agents, output):
        for who, after in ((1, 10), (0, 60)):
            kill(agents, out, who, after)
        text = ended(agents, output)
    assert text.count("torchrun started the ranks anew: going on with the run in") == 2, text
    assert rounds(out) == list(range(1, ROUNDS + 1))
    assert len(read_journal(out / "journal")[1]) == ROUNDS
    assert (out / "orbit.safetensors").read_bytes() == (alone / "orbit.safetensors").read_bytes()
    found, right = read_summary(out), read_summary(alone)
    same = ("fingerprint", "status", "rounds", "metric_before", "metric_after", "loss_after")
    assert {key: found[key] for key in same} == {key: right[key] for key in same}
    scored = [[(r["t"], r["value"]) for r in read_metrics(f) if "split" in r] for f in (out, alone)]
    assert scored[0] == scored[1]


def test_dense_run_that_starts_over_is_killed_twice(tmp_path: Path) -> None:
    """--force moves the old run aside once: the attempts after it go on with the new one."""
    settings, out = [*GRADIENTS, "mesh.threads=1"], tmp_path / "run"
    ok("train", "digits", *parts(settings), "--out", out)
    with job(ONE_HOST, argv(settings, out, "--force")) as (agents, output):
        for who, after in ((0, 20), (1, 40)):
            kill(agents, out, who, after)
        text = ended(agents, output)
    assert "resumed after round 14" in text or "resumed after round 21" in text, text
    assert rounds(out) == list(range(1, 61))
    old = tmp_path / "run.old-1"
    assert sorted(tmp_path.iterdir()) == [out, old]
    assert (out / "weights.safetensors").read_bytes() == (old / "weights.safetensors").read_bytes()
    assert read_summary(out)["fingerprint"] == read_summary(old)["fingerprint"]


def test_two_agents_that_count_restarts_apart(tmp_path: Path, alone: Path) -> None:
    """One agent on each of two "hosts": the one whose rank lives joins the other's restart, often without counting."""
    out, where = tmp_path / "run", f"--rdzv-endpoint=127.0.0.1:{free_port()}"
    meet = ["--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", "--rdzv-id=7", where, "--local-addr=127.0.0.1"]
    with job(meet, argv([*VOTES, "mesh.threads=1"], out), agents=2) as (agents, output):
        for after in (10, 60):
            kill(agents, out, 1, after)
        ended(agents, output)
    assert rounds(out) == list(range(1, ROUNDS + 1))
    assert (out / "orbit.safetensors").read_bytes() == (alone / "orbit.safetensors").read_bytes()


def test_a_run_of_another_job_is_refused_in_every_attempt(tmp_path: Path) -> None:
    recipe = load_recipe("digits", VOTES)
    RunFolder.create(tmp_path / "run", to_toml(recipe), {}).close()
    (tmp_path / "run" / "journal").write_bytes(b"of yesterday")
    finished = launch("torchrun", 2, ["--max-restarts", "1", *argv(VOTES, tmp_path / "run")])
    said = [line for line in finished.output.splitlines() if "holds an unfinished run (status interrupted)" in line]
    assert finished.code != 0 and sum(line.startswith("hpcfed: row 0: ") for line in said) == 2
    assert (tmp_path / "run" / "journal").read_bytes() == b"of yesterday"


def attempts(transport: Transport, folder: str) -> list[Any]:
    """What a job finds before and after it entered a folder, and once the run there has ended."""
    out, found = Path(folder), []
    for step in ("nothing", "begun", "ended"):
        if transport.row.index == 0 and step == "begun":
            note_begun(discover(), out)
        if transport.row.index == 0 and step == "ended":
            (out / "summary.json").write_text('{"status": "finished"}')
        transport.barrier()
        found.append(earlier_attempts(transport, discover(), out, rounds=10**9))
    return [[e.begun, e.summary] for e in found]


@pytest.mark.parametrize("n", [1, 2])
def test_what_an_attempt_learns(tmp_path: Path, n: int) -> None:
    for found in run_ranks(n, attempts, str(tmp_path), launcher="torchrun"):
        assert found == [[False, None], [True, None], [True, {"status": "finished"}]]


def test_torchruns_last_words_are_the_reason(tmp_path: Path) -> None:
    finished = launch("torchrun", 2, ["-m", "hpcfed", "train", "digits", "--set", "rounds=0", "--out", str(tmp_path)])
    last = [line for line in finished.output.splitlines() if line.strip()][-8:]
    assert finished.code == 1 and "<N/A>" not in finished.output
    assert any(
        line.strip() == "traceback : hpcfed: rounds=0: input should be greater than or equal to 1" for line in last
    )
