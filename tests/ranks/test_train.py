"""One recipe, one result: whatever starts the ranks, however many rows, whatever kills the run on the way."""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from hpcfed.orbit import read_journal
from hpcfed.transport.choose import choose
from hpcfed.transport.launch import Launch
from tests.support.command import ok
from tests.support.harness import Launcher, launch, mpirun, run_ranks, start, stop
from tests.support.train_checks import (
    VARIANTS,
    grown,
    interrupted_and_several,
    one_run,
    several,
    signalled,
    under_torchrun,
)

Result = list[Any]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """Every variant in one process: what all other launches must find."""
    folder = tmp_path_factory.mktemp("alone")
    found = {v: one_run(choose(Launch()), str(folder / v), v, []) for v in VARIANTS}
    assert all(status == "finished" and orbit for _, status, _, orbit in found.values())
    assert len({fingerprint for fingerprint, *_ in found.values()}) == len(VARIANTS)
    return found


def same_everywhere(results: list[dict[str, Any]], alone: dict[str, Result]) -> None:
    for rank, found in enumerate(results):
        for variant in found.keys() & VARIANTS.keys():
            last = found[variant][-1] if isinstance(found[variant][0], list) else found[variant]
            assert last == alone[variant], f"{variant} on rank {rank} of {len(results)}"


def test_torchrun_of_two(tmp_path: Path, alone: dict[str, Result]) -> None:
    results = run_ranks(2, under_torchrun, str(tmp_path), launcher="torchrun")
    same_everywhere(results, alone)
    for found in results:
        assert found["tampered"].startswith("after round 3 the weights' fingerprint differs between rows (row 0: ")
        assert "; row 1: " in found["tampered"]
        assert found["half"][0][1:3] == ["interrupted", 0]


def test_torchrun_of_three_interrupted(tmp_path: Path, alone: dict[str, Result]) -> None:
    runs = {"half": ["algorithm.ballot=bits"]}
    results = run_ranks(3, interrupted_and_several, str(tmp_path), "SIGUSR1", 2, runs, launcher="torchrun")
    same_everywhere(results, alone)
    assert [found["plain"][0][1] for found in results] == ["interrupted"] * 3
    assert len({found["plain"][0][2] for found in results}) == 1  # all ended after the same round
    assert 40 <= results[0]["plain"][0][2] < 300


def test_mpirun_of_two_interrupted(tmp_path: Path, alone: dict[str, Result]) -> None:
    mpirun()
    runs = {"directions": ["algorithm.ballot=bits"]}
    results = run_ranks(2, interrupted_and_several, str(tmp_path), "SIGTERM", 1, runs, launcher="mpirun")
    same_everywhere(results, alone)
    assert [found["plain"][0][1] for found in results] == ["interrupted"] * 2


def test_mpirun_of_four(tmp_path: Path, alone: dict[str, Result]) -> None:
    mpirun()
    runs = {"plain": [], "trios": ["algorithm.ballot=bits"]}
    same_everywhere(run_ranks(4, several, str(tmp_path), runs, launcher="mpirun"), alone)


# --- killed, with the command as a user types it ---------------------------------------------------------------------

PLAIN = [part for setting in VARIANTS["plain"] for part in ("--set", setting)]


class Job:
    """`hpcfed train digits` on n ranks of a launcher, in the background."""

    def __init__(self, launcher: Launcher, n: int, out: Path, *more: str) -> None:
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  (closed with this object)
        argv = ["-m", "hpcfed", "train", "digits", *PLAIN, "--out", str(out), *more]
        self.children = start(launcher, n, argv, self._output)

    def ranks(self) -> list[int]:
        """Process ids of the ranks, in rank order."""
        child = self.children[0].pid
        below = [int(pid) for pid in Path(f"/proc/{child}/task/{child}/children").read_text().split()]
        numbered = [(_rank(pid), pid) for pid in below]
        return [pid for rank, pid in sorted(numbered) if rank >= 0] or [child]

    def end(self, seconds: float = 90) -> tuple[int, str]:
        """Exit status and all that was printed."""
        try:
            code = self.children[0].wait(seconds)
        finally:
            stop(self.children)
        self._output.seek(0)
        return code, self._output.read().decode(errors="replace")


def _rank(pid: int) -> int:
    for item in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
        if item.startswith(b"RANK="):
            return int(item[5:])
    return -1


def killed(job: Job, journal: Path, who: int, rounds: int) -> int:
    """SIGKILL to one rank once the journal holds so many rounds; how many it holds then."""
    grown(journal, rounds)
    time.sleep(random.random() * 0.05)  # anywhere within a round
    os.kill(job.ranks()[who], signal.SIGKILL)
    code, output = job.end()
    assert code != 0, output
    kept = len(read_journal(journal)[1])
    assert rounds <= kept < 300, output
    return kept


def test_one_process_killed_twice(tmp_path: Path, alone: dict[str, Result]) -> None:
    out, journal = tmp_path / "run", tmp_path / "run" / "journal"
    kept = killed(Job("ranks", 1, out), journal, 0, random.randrange(1, 100))
    with journal.open("ab") as file:
        file.write(b"\x07" * 5)  # a power failure tears the last record
    kept = killed(Job("ranks", 1, out, "--resume"), journal, 0, kept + random.randrange(1, 80))
    os.truncate(journal, journal.stat().st_size - 3)  # the other way to tear it
    said = ok("train", "digits", *PLAIN, "--out", out, "--resume")
    assert f"a torn tail of 10 bytes was dropped; rounds 0..{kept - 2} are intact" in said.err
    assert f"resumed after round {kept - 1}" in said.err
    assert (out / "orbit.safetensors").read_bytes().hex() == alone["plain"][3]
    assert f'"fingerprint": "{alone["plain"][0]}"' in (out / "summary.json").read_text()


def test_torchrun_killed_twice(tmp_path: Path, alone: dict[str, Result]) -> None:
    out, journal = tmp_path / "run", tmp_path / "run" / "journal"
    kept = killed(Job("torchrun", 2, out), journal, 1, random.randrange(1, 80))
    kept = killed(Job("torchrun", 2, out, "--resume"), journal, 0, kept + random.randrange(1, 80))
    # One process goes on where two rows were killed, is asked to stop, and ends where an undisturbed run does.
    with signalled("SIGTERM", journal, kept + 5):
        _, status, rounds, orbit = one_run(choose(Launch()), str(out), "plain", [], resume=True)
    assert status == "interrupted" and rounds == len(read_journal(journal)[1]) < 300 and not orbit
    assert one_run(choose(Launch()), str(out), "plain", [], resume=True) == alone["plain"]


def test_more_rows_than_groups_of_clients(tmp_path: Path) -> None:
    argv = ["-m", "hpcfed", "train", "digits", "--set", "clients.group=10", "--out", str(tmp_path / "run")]
    finished = launch("ranks", 2, argv)
    assert finished.code == 1 and "Traceback" not in finished.output
    assert finished.output.count("2 rows were launched, but the clients form only 1 group and") == 1
    assert "lower clients.group" in finished.output
