"""Python in a mount namespace of its own, where a test may mount what it likes; as root on Linux."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.harness import environment


def python_inside(prepare: str, code: str, folder: Path, extra: Mapping[str, str] | None = None) -> str:
    """What Python code prints in `folder`, after shell commands that mount things there; stderr is added.

    Where namespaces are not allowed: skip, but fail in continuous integration.
    """
    unshare = shutil.which("unshare")
    if not unshare or subprocess.run([unshare, "-m", "-u", "true"], capture_output=True).returncode:
        reason = "this machine allows no namespaces (unshare -m -u)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    script = f'set -e\nmount --make-rprivate /\n{prepare}\nexec "$0" "$@"'
    line = [unshare, "-m", "-u", "bash", "-c", script, sys.executable, "-c", code]
    done = subprocess.run(line, cwd=folder, env=environment(extra), capture_output=True, text=True, timeout=120)
    return done.stdout + done.stderr
