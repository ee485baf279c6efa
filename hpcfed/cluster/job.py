"""Hand a script to Slurm, and follow the job: sbatch, scontrol, the runs' metrics.jsonl. No accounting needed.

Promise  A job that is queued again is followed on; only a state that Slurm shows twice in a row is its end.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..atomic import write_atomic
from ..errors import ConfigError, HpcfedError
from ..runs.progress import Progress
from ..runs.read import METRICS
from .script import TIME, JobSpec, seconds

#: Exit status of hpcfed submit --wait; FAILED hands on the script's own.
CODES = {"COMPLETED": 0, "TIMEOUT": 124, "DEADLINE": 124, "OUT_OF_MEMORY": 137, "CANCELLED": 130}
ENDED = (*CODES, "FAILED", "NODE_FAIL", "BOOT_FAIL", "PREEMPTED")
TAIL = 8192  # bytes: several lines of metrics.jsonl


@dataclass(frozen=True)
class Seen:
    """What Slurm says of one job, or of one task of an array.  name: as Slurm writes it, e.g. 12_3."""

    name: str
    state: str
    reason: str
    restarts: int
    nodes: str
    code: int
    log: Path

    def line(self) -> str:
        """For people."""
        where = f" on {self.nodes}" if self.state == "RUNNING" else ""
        why = f" ({self.reason})" if self.reason not in ("None", "") and self.state != "RUNNING" else ""
        again = f", start {self.restarts + 1}" if self.restarts else ""
        return f"job {self.name}: {self.state}{where}{again}{why}"


def _slurm(*argv: str) -> subprocess.CompletedProcess[str]:
    if shutil.which(argv[0]) is None:
        raise ConfigError(
            f"no {argv[0]} here: hpcfed submit needs Slurm's commands; --dry-run shows the script anywhere"
        )
    return subprocess.run(argv, capture_output=True, text=True)


def check_limits(spec: JobSpec) -> None:
    """ConfigError if the partition is too small or its time too short: a job that Slurm would let wait for ever."""
    nodes: dict[str, int] = {}
    limits: dict[str, str] = {}
    chosen = spec.partition
    for line in _slurm("sinfo", "-h", "-o", "%P|%D|%l").stdout.splitlines():
        name, count, limit = line.split("|")
        chosen = chosen or (name[:-1] if name.endswith("*") else None)  # the default partition
        name = name.rstrip("*")
        nodes[name], limits[name] = nodes.get(name, 0) + int(count), limit
    if chosen not in nodes:  # several, none or unknown: sbatch knows
        return
    if spec.nodes > nodes[chosen]:
        enough = [f"{name} ({count})" for name, count in nodes.items() if count >= spec.nodes]
        cure = f"; these have enough: {', '.join(enough)}" if enough else ""
        raise ConfigError(f"--nodes {spec.nodes}: partition {chosen} has {nodes[chosen]}{cure}")
    if TIME.fullmatch(limits[chosen]) and seconds(spec.time) > seconds(limits[chosen]):
        raise ConfigError(
            f"--time {spec.time}: partition {chosen} allows {limits[chosen]}; use --time {limits[chosen]}, a run that "
            "needs more is queued again and goes on"
        )


def queue(script: str, path: Path) -> str:
    """Write the script and submit it from this folder; the job's number. HpcfedError with Slurm's own words."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)  # Slurm does not make the folder of its log
        write_atomic(path, script)
    except OSError as error:
        raise ConfigError(f"{path}: cannot write the script: {error.strerror}; choose another --out") from None
    done = _slurm("sbatch", "--parsable", str(path))
    if done.returncode:
        raise HpcfedError(f"sbatch refused {path}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip().partition(";")[0]  # JOB;CLUSTER where there are several clusters


def look(job: str) -> list[Seen] | None:
    """The job, or the tasks of the array; None if Slurm does not know it (any more)."""
    done = _slurm("scontrol", "show", "job", "-o", job)
    if done.returncode:
        if "Invalid job id" in done.stderr:
            return None
        raise HpcfedError(f"scontrol show job {job}: {done.stderr.strip()}")
    seen = []
    for line in done.stdout.splitlines():
        fields = dict(part.split("=", 1) for part in line.split() if "=" in part)
        task = fields.get("ArrayTaskId")
        seen.append(
            Seen(
                f"{fields['ArrayJobId']}_{task}" if task else fields["JobId"],
                fields["JobState"],
                fields.get("Reason", ""),
                int(fields.get("Restarts", "0")),
                fields.get("NodeList", ""),
                int(fields.get("ExitCode", "0:0").partition(":")[0]),
                Path(fields.get("StdOut", "")),
            )
        )
    return seen


def follow(
    job: str, folders: Sequence[Path], rounds: int, period: float = 5.0, sleep: Callable[[float], None] = time.sleep
) -> int:
    """Show the job's states and the rounds of its runs until it has ended; its exit status, of an array the worst.

    rounds: of one run.  period: seconds between two looks.
    """
    before: list[Seen] | None = None
    told: dict[str, str] = {}
    total, moving = rounds * len(folders), False
    with contextlib.ExitStack() as stack:
        progress = Progress(total)
        while True:
            seen = _patiently(job, progress.note, lambda: sleep(period))
            if seen is None:
                raise HpcfedError(f"job {job}: Slurm does not know it any more; see {folders[0]} for what it left")
            for one in seen:
                if told.get(one.name) != one.line():
                    told[one.name] = one.line()
                    progress.note(one.line())
            done = sum(map(_last, folders))
            if moving:
                progress.round(done - 1)
            elif done:  # from here on: the time in the queue says nothing about the time that is left
                progress, moving = stack.enter_context(Progress(total, done)), True
            if before and all(one.state in ENDED for one in (*seen, *before)):  # PREEMPTED may yet become PENDING
                break
            before = seen
            sleep(period)
    failed = [one for one in seen if one.state != "COMPLETED"]
    for one in failed:
        print(f"hpcfed: {one.line()}, exit code {one.code}; the end of {one.log}:\n{_tail(one.log)}", file=sys.stderr)
    return max((CODES.get(one.state, one.code or 1) for one in failed), default=0)


def _patiently(job: str, note: Callable[[str], None], pause: Callable[[], None]) -> list[Seen] | None:
    """`look`, again and again while the scheduler does not answer: one that is restarted does not end the job."""
    said = ""
    while True:
        try:
            return look(job)
        except HpcfedError as error:
            if said != str(error):
                said = str(error)
                note(f"{said}; trying again")
            pause()


def _last(folder: Path) -> int:
    """Rounds that metrics.jsonl has seen."""
    with contextlib.suppress(OSError):
        for line in reversed(_end(folder / METRICS).splitlines()):
            with contextlib.suppress(ValueError):  # torn, or cut off at the front
                record = json.loads(line)
                if isinstance(record, dict) and isinstance(record.get("t"), int):
                    return int(record["t"])
    return 0


def _end(file: Path) -> str:
    with file.open("rb") as opened:
        opened.seek(max(0, file.stat().st_size - TAIL))
        return opened.read().decode(errors="replace")


def _tail(log: Path) -> str:
    try:
        return "\n".join(f"    {line}" for line in _end(log).splitlines()[-20:])
    except OSError as error:
        return f"    (cannot read it here: {error.strerror})"
