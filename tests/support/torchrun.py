"""torchrun jobs whose ranks are killed, and started anew by their agents."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hpcfed.runs.read import read_metrics
from tests.support.harness import environment, stop

ONE_HOST = ["--standalone", "--nproc-per-node=2"]


def rounds(out: Path) -> list[int]:
    """The rounds in metrics.jsonl, in order."""
    return [record["t"] for record in read_metrics(out) if not {"split", "timed"} & record.keys()]


def workers(agents: list[Any]) -> dict[int, int]:
    """Rank -> process id, of the children of torchrun's agents that are alive."""
    found = {}
    for agent in agents:
        for child in Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split():
            with suppress(OSError):  # it has just ended
                for item in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
                    if item.startswith(b"RANK="):
                        found[int(item[5:])] = int(child)
    return found


def kill(agents: list[Any], out: Path, who: int, after: int) -> None:
    """SIGKILL to rank `who` once `after` rounds of a run that has not ended are done."""
    end = time.monotonic() + 120
    while (out / "summary.json").exists() or max(rounds(out), default=0) < after or who not in workers(agents):
        assert time.monotonic() < end and all(agent.poll() is None for agent in agents), f"never came to round {after}"
        time.sleep(0.005)
    os.kill(workers(agents)[who], signal.SIGKILL)


@contextmanager
def job(options: list[str], line: list[str], agents: int = 1) -> Iterator[tuple[list[Any], Any]]:
    """The agents of one torchrun job, and the file that all their ranks write to."""
    command = [sys.executable, "-m", "torch.distributed.run", "--max-restarts=5", *options, *line]
    with tempfile.TemporaryFile() as output:
        common: dict[str, Any] = {"env": environment(), "stdin": subprocess.DEVNULL, "start_new_session": True}
        children = [subprocess.Popen(command, stdout=output, stderr=output, **common) for _ in range(agents)]
        try:
            yield children, output
        finally:
            stop(children)


def ended(agents: list[Any], output: Any, code: int = 0) -> str:
    """All that was printed, once the job has ended with `code`."""
    codes = [agent.wait(120) for agent in agents]
    output.seek(0)
    text: str = output.read().decode(errors="replace")
    assert codes == [code] * len(agents), text
    return text
