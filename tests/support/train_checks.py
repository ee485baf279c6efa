"""What every rank does in test_train.py: whole runs of the digits recipe, several on one launch."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from hpcfed.config import load_recipe
from hpcfed.errors import DivergedError
from hpcfed.runs.folder import RunFolder
from hpcfed.runs.record import FolderRecord, Record
from hpcfed.train import loop
from hpcfed.train.build import build_together
from hpcfed.train.loop import run_all_rounds
from hpcfed.train.meet import Meeting
from hpcfed.train.start import run_recipe
from hpcfed.transport.base import Transport
from hpcfed.transport.launch import discover

RECORD = 13  # bytes a round in a journal with up to 8 directions: t, decision, crc
SMALL = "clients.batch=16"  # a round then takes 20 ms of one core
VARIANTS = {
    "plain": ["rounds=300", SMALL],
    "half": ["rounds=60", SMALL, "clients.per_round=0.5"],
    "directions": ["rounds=60", SMALL, "algorithm.directions=2"],
    "trios": ["rounds=60", SMALL, "clients.group=3"],
}


def grown(journal: Path, rounds: int, seconds: float = 60) -> None:
    """Wait until a journal holds that many rounds; its header's size is in its bytes 8 to 11."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            with journal.open("rb") as file:
                head = file.read(12)
            if len(head) == 12 and journal.stat().st_size >= 16 + int.from_bytes(head[8:], "little") + RECORD * rounds:
                return
        time.sleep(0.002)
    raise TimeoutError(f"{journal} has not got {rounds} rounds in {seconds} s")


@contextlib.contextmanager
def signalled(name: str, journal: Path, rounds: int) -> Iterator[None]:
    """Inside, this process signals itself once the journal holds that many rounds."""

    def wait() -> None:
        grown(journal, rounds)
        os.kill(os.getpid(), getattr(signal, name))

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def one_run(transport: Transport, out: str, variant: str, more: list[str], resume: bool = False) -> list[Any]:
    """Train; fingerprint, status, rounds and the sealed orbit in hex, of which row 0 alone sees the last."""
    recipe = load_recipe("digits", [*VARIANTS[variant], *more])
    summary = run_recipe(Meeting(recipe, transport, discover()), Path(out), resume, quiet=True).summary
    transport.barrier()
    orbit = Path(out) / "orbit.safetensors"
    sealed = orbit.read_bytes().hex() if orbit.exists() else ""
    return [summary["fingerprint"], summary["status"], summary["rounds"], sealed]


def several(transport: Transport, folder: str, runs: dict[str, list[str]]) -> dict[str, list[Any]]:
    """One run after the other on the same ranks; runs: variant -> further overrides."""
    return {v: one_run(transport, f"{folder}/{v}", v, more) for v, more in runs.items()}


def interrupted_once(transport: Transport, folder: str, name: str, who: int) -> list[list[Any]]:
    """The plain run, ended by a signal to row `who` alone after some rounds, and then resumed."""
    journal = Path(folder) / "plain" / "journal"
    with signalled(name, journal, 40) if transport.row.index == who else contextlib.nullcontext():
        first = one_run(transport, str(journal.parent), "plain", [])
    return [first, one_run(transport, str(journal.parent), "plain", [], resume=True)]


def tampered(transport: Transport, folder: str, who: int) -> str:
    """A run in which one weight of row `who` changes behind its back; what every row says about it."""
    run = build_together(load_recipe("digits", ["rounds=40", "check_every=3"]), transport)
    run.record = FolderRecord(RunFolder.create(folder, "", {}), quiet=True) if transport.row.index == 0 else Record()
    if transport.row.index == who:
        p = next(iter(run.problem.weights.params.values()))
        p.view(-1)[0] = torch.nextafter(p.view(-1)[0], torch.tensor(9.0))
    try:
        run_all_rounds(run)
    except DivergedError as e:
        return str(e)
    return "nobody noticed"


def killed_at_the_end(transport: Transport, folder: str) -> list[Any]:
    """The plain run there, gone on with as if it had been killed right after its last evaluation."""
    if transport.row.index == 0:
        Path(folder, "plain", "summary.json").unlink()
        Path(folder, "plain", "orbit.safetensors").unlink()
    return one_run(transport, f"{folder}/plain", "plain", [], resume=True)


def stopped_while_evaluating(transport: Transport, folder: str, who: int) -> list[list[Any]]:
    """The run "half", of which row `who` alone is asked to end when its first evaluation begins, and then resumed."""
    real = loop.evaluate

    def evaluate(*args: Any) -> Any:
        if transport.row.index == who:
            signal.raise_signal(signal.SIGTERM)
        return real(*args)

    loop.evaluate = evaluate
    try:
        first = one_run(transport, f"{folder}/half", "half", ["eval_batch=8"])
    finally:
        loop.evaluate = real
    return [first, one_run(transport, f"{folder}/half", "half", ["eval_batch=8"], resume=True)]


def under_torchrun(transport: Transport, folder: str) -> dict[str, Any]:
    """All that is checked on one launch of two rows."""
    found: dict[str, Any] = several(transport, folder, {"plain": ["algorithm.ballot=bits"]})
    return found | {
        "plain": [found["plain"], killed_at_the_end(transport, folder)],
        "tampered": tampered(transport, f"{folder}/tampered", 1),
        "half": stopped_while_evaluating(transport, folder, 1),
    }


def interrupted_and_several(
    transport: Transport, folder: str, name: str, who: int, runs: dict[str, list[str]]
) -> dict[str, Any]:
    """`interrupted_once`, then `several` others on the same launch."""
    found: dict[str, Any] = {"plain": interrupted_once(transport, folder, name, who)}
    return found | several(transport, folder, runs)
