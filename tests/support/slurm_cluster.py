"""A real Slurm cluster of four nodes on this host: munged, slurmctld and four slurmd, all children of the test.

    with Cluster() as cluster:
        cluster.run("sinfo")

Everything lies in one folder of its own under /tmp, with ports of its own, beside any other Slurm of this machine.
Each slurmd has a mount and host-name namespace: PMIx names its folders by job and host, in which four nodes on one host
would collide. The daemons are children, not daemons: they end with the test, also when the test is killed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

import pytest

from tests.support.harness import ROOT, Finished, environment

NODES = 4
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "setpriv", "unshare")
PACKAGES = "apt-get install --no-install-recommends slurm-wlm munge libpmix2 libpmix-dev"
SBIN = "/usr/sbin:/sbin"  # not on every user's PATH
#: plenty of time on a machine that does ten other things
PATIENCE = 120.0

CONF = """\
ClusterName=hpcfed
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={lab}/run/munge.socket
CredType=cred/munge
MpiDefault=none
SlurmctldPort={control_port}
StateSaveLocation={lab}/state
SlurmdSpoolDir={lab}/spool/%n
SlurmctldPidFile={lab}/run/slurmctld.pid
SlurmdPidFile={lab}/run/slurmd-%n.pid
SlurmctldLogFile={lab}/log/slurmctld.log
SlurmdLogFile={lab}/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=defer_batch,sched_interval=2,bf_interval=2,sched_min_interval=100000
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
InactiveLimit=0
KillWait=5
MinJobAge=300
SlurmctldTimeout=60
SlurmdTimeout=60
SlurmdParameters=config_overrides
JobRequeue=1
"""


def need_slurm() -> None:
    """Skip with the reason where no cluster can be started; in continuous integration fail instead."""
    missing = [program for program in PROGRAMS if shutil.which(program, path=f"{os.environ['PATH']}:{SBIN}") is None]
    if missing:
        skip(f"no {', '.join(missing)} here: {PACKAGES}")
    if os.geteuid() != 0:
        skip("only root can start slurmd")
    if subprocess.run(["unshare", "-m", "-u", "true"], capture_output=True).returncode:
        skip("this machine allows no namespaces (unshare -m -u)")


def skip(reason: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def free_ports(n: int) -> list[int]:
    """Ports that nobody uses, all different."""
    probes = [socket.socket() for _ in range(n)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


class Cluster:
    """Four idle nodes n1..n4 of four CPUs; a context manager.  lab: its folder."""

    def __init__(self) -> None:
        # Not below pytest's folder: munged wants a folder that all may enter, and sockets want short paths.
        self.lab = Path(tempfile.mkdtemp(prefix="hpcfed-slurm-", dir="/tmp"))
        self.lab.chmod(0o755)
        self.conf = self.lab / "etc" / "slurm.conf"
        self.ports = free_ports(NODES + 1)  # slurmctld's, then the slurmds'
        self._speaks = {"none"}
        self._children: list[subprocess.Popen[bytes]] = []

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """What commands and jobs run with."""
        ours = environment({"SLURM_CONF": str(self.conf)})
        scratch = {"TMPDIR": f"{self.lab}/tmp", "OMPI_MCA_btl_sm_backing_directory": f"{self.lab}/tmp"}  # not /dev/shm
        path = f"{Path(sys.executable).parent}:{ours['PATH']}:{SBIN}"  # hpcfed, also where nothing is activated
        return ours | scratch | {"PATH": path} | dict(extra or {})

    def run(self, *argv: str) -> str:
        """Standard output of a command, which must succeed."""
        done = subprocess.run(argv, env=self.environment(), capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, f"{argv} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def srun(
        self, nodes: int, ranks: int, *argv: str, mpi: str = "none", extra: Mapping[str, str] | None = None
    ) -> Finished:
        """launch/srun.sh with `ranks` a node, to its end."""
        self.need(mpi)
        began = time.monotonic()
        done = subprocess.run(
            [ROOT / "launch" / "srun.sh", str(nodes), str(ranks), *argv],
            env=self.environment({"MPI": mpi} | dict(extra or {})),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
        )
        return Finished(done.returncode, done.stdout, time.monotonic() - began)

    def need(self, mpi: str) -> None:
        """Skip if Slurm cannot speak it to ranks."""
        if mpi not in self._speaks:
            done = subprocess.run(
                ["srun", f"--mpi={mpi}", "true"], env=self.environment(), capture_output=True, text=True
            )
            if done.returncode:
                skip(f"srun --mpi={mpi} true: {done.stderr.strip()}; {PACKAGES}")
            self._speaks.add(mpi)

    def own(self, node: str) -> Path:
        """A folder that only this node sees, as {lab}/pmix."""
        return self.lab / "priv" / node

    def wait_for(self, what: str, reached: Callable[[], bool], patience: float = PATIENCE) -> None:
        """Poll until reached(); fails with the daemons' logs after `patience` seconds."""
        end = time.monotonic() + patience
        while not reached():
            if time.monotonic() > end:
                pytest.fail(f"{what}: not within {patience:g} s\n{self.logs()}")
            time.sleep(0.2)

    def field(self, job: str, name: str) -> str:
        """One field of `scontrol show job`, e.g. JobState."""
        said = self.run("scontrol", "show", "job", "-o", job)
        return next(part.split("=", 1)[1] for part in said.split() if part.startswith(f"{name}="))

    def ended(self, job: str) -> bool:
        return self.field(job, "JobState") not in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "REQUEUED")

    def story(self, job: str) -> str:
        """What Slurm says of a job, and its daemons' logs."""
        return f"{self.run('scontrol', 'show', 'job', job)}\n{self.logs()}"

    def logs(self) -> str:
        """The ends of the daemons' logs."""
        return "\n".join(f"== {log.name}\n{log.read_text()[-1500:]}" for log in sorted((self.lab / "log").iterdir()))

    def _start(self, *argv: str) -> None:
        log = (self.lab / "log" / "daemons.log").open("ab")
        with log:
            # setpriv: whatever ends this process ends the daemon too
            self._children.append(
                subprocess.Popen(
                    ["setpriv", "--pdeathsig", "TERM", *argv],
                    env=self.environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )

    def __enter__(self) -> Self:
        try:
            self._up()
        except BaseException:
            self._down()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._down()

    def _up(self) -> None:
        lab, nodes = self.lab, [f"n{i + 1}" for i in range(NODES)]
        of_nodes = (f"{part}/{node}" for part in ("priv", "spool") for node in nodes)
        for folder in ("etc", "run", "log", "state", "pmix", "tmp", *of_nodes):
            (lab / folder).mkdir(parents=True)
        key = lab / "etc" / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        host = socket.gethostname().partition(".")[0]
        text = CONF.format(lab=lab, host=host, control_port=self.ports[0])
        for node, port in zip(nodes, self.ports[1:], strict=True):
            text += f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=4 RealMemory=4000\n"
        self.conf.write_text(text + f"PartitionName=debug Nodes=n[1-{NODES}] Default=YES MaxTime=INFINITE State=UP\n")
        (lab / "etc" / "mpi.conf").write_text(f"PMIxCliTmpDirBase={lab}/pmix\n")
        munge = {"key-file": "etc/munge.key", "socket": "run/munge.socket", "pid-file": "run/munged.pid"}
        munge |= {"log-file": "log/munged.log", "seed-file": "run/munged.seed"}
        self._start("munged", "--foreground", "--num-threads=2", *(f"--{k}={lab}/{v}" for k, v in munge.items()))
        self.wait_for("munged", (lab / "run" / "munge.socket").exists)
        self._start("slurmctld", "-D", "-c", "-i", "-f", str(self.conf))
        for node in nodes:
            prepare = f"mount --bind {lab}/priv/{node} {lab}/pmix && hostname {node}"
            self._start("unshare", "-m", "-u", "sh", "-c", f"{prepare} && exec slurmd -D -f {self.conf} -N {node}")
        self.wait_for("four idle nodes", lambda: self._idle() == str(NODES))

    def _idle(self) -> str:
        done = subprocess.run(
            ["sinfo", "-h", "-t", "idle", "-o", "%D"], env=self.environment(), capture_output=True, text=True
        )
        return done.stdout.strip()

    def _down(self) -> None:
        # What is half up cannot be asked.
        with contextlib.suppress(OSError, AssertionError, subprocess.SubprocessError):
            subprocess.run(["scancel", "--user=root"], env=self.environment(), capture_output=True, timeout=20)
            end = time.monotonic() + 15
            while self.run("squeue", "-h") and time.monotonic() < end:
                time.sleep(0.1)
        for child in reversed(self._children):
            child.terminate()
        for child in reversed(self._children):
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        for pid in self.processes():  # a step that its slurmd has left behind
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.lab, ignore_errors=True)

    def processes(self) -> list[int]:
        """Every live process of this cluster and its jobs: they alone have its slurm.conf in their environment."""
        ours, found = f"SLURM_CONF={self.conf}".encode(), []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and ours in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
        return found

    def left(self) -> list[str]:
        """What has not been tidied up: processes, the folder, ports."""
        found = [f"process {pid}" for pid in self.processes()] + [str(self.lab)] * self.lab.exists()
        for port in self.ports:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    found.append(f"port {port}")
        return found
