"""A process that has imported what ranks need, and forks them: a launch then takes no 7 s of imports a rank.

    nursery = Nursery(env)
    codes, seconds = nursery.raise_ranks(places, argv, output, timeout)   codes: None if that took too long

It does nothing but import, so what it forks is as fresh as a new interpreter: no thread has been started, no model
loaded. Ranks of one launch are one session, which ends together. The real launchers start interpreters of their own.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Nursery:
    """Started at once, in the environment `env`; ends with the process that started it."""

    def __init__(self, env: Mapping[str, str]) -> None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name], env=dict(env), cwd=ROOT, text=True, bufsize=1, **pipes
        )

    def raise_ranks(
        self, places: Sequence[Mapping[str, str]], argv: Sequence[str], output: str, timeout: float
    ) -> list[int] | None:
        """harness._rank(*argv) once with each of the environments; their exit statuses.

        output: a file that all of them write to.  None: still running after `timeout` seconds, and killed.
        """
        process = self._process
        assert process.stdin and process.stdout
        with tempfile.TemporaryDirectory() as folder:
            codes = Path(folder, "codes")
            print(json.dumps([list(places), list(argv), output, str(codes)]), file=process.stdin, flush=True)
            session = int(process.stdout.readline())
            in_time = bool(select.select([process.stdout], [], [], timeout)[0])
            if not in_time:
                os.killpg(session, signal.SIGKILL)
            assert process.stdout.readline() == "ended\n"
            found: list[int] | None = json.loads(codes.read_text()) if in_time else None
            return found


def main() -> None:
    """A launch a line of stdin: places, argv, output, and the file for the exit statuses."""
    # Some of it would be imported at its first use only, in every rank.
    import sklearn.datasets  # noqa: F401
    import transformers.image_processing_backends  # noqa: F401
    from transformers import AutoModelForCausalLM, AutoModelForImageClassification  # noqa: F401
    from transformers.models.opt import modeling_opt  # noqa: F401
    from transformers.models.vit import modeling_vit  # noqa: F401

    import hpcfed.cli.main
    import hpcfed.train.score
    import hpcfed.train.start  # noqa: F401

    assert "mpi4py.MPI" not in sys.modules, "MPI would be started in all ranks at once"
    for line in sys.stdin:
        places, argv, output, codes = json.loads(line)
        if (session := os.fork()) == 0:
            os.setsid()
            _say_to(output)
            ranks = [_forked(place, argv) for place in places]
            Path(codes).write_text(json.dumps([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in ranks]))
            os._exit(0)
        print(session, flush=True)
        os.waitpid(session, 0)
        print("ended", flush=True)


def _say_to(output: str) -> None:
    for fd, file, how in ((0, os.devnull, os.O_RDONLY), (1, output, os.O_WRONLY | os.O_APPEND)):
        os.dup2(os.open(file, how), fd)
    os.dup2(1, 2)


def _forked(place: Mapping[str, str], argv: Sequence[str]) -> int:
    """Process id of a rank."""
    if pid := os.fork():
        return pid
    code = 1
    try:
        os.environ.update(place)
        from tests.support.harness import _rank

        _rank(*argv)
        code = 0
    except SystemExit as e:
        code = e.code if isinstance(e.code, int) else int(e.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
