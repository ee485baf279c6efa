"""What doctor sees of a host, on real mounts and in real environments."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpcfed.cluster.host import look_around, own_name
from tests.support.namespaces import python_inside

LOOK = "import json\nfrom hpcfed.cluster.host import look_around\nprint(json.dumps(look_around()))"


@pytest.mark.parametrize(
    ("prepare", "extra", "says"),
    [
        ("", {}, ""),
        ("mount -t tmpfs -o size=200k none tmp", {}, "TMPDIR (HERE/tmp) has 0.205 MB free; set TMPDIR to a folder"),
        ("mount -t tmpfs -o size=4k none tmp", {}, "TMPDIR"),
        ("", {"TMPDIR": "HERE/nowhere"}, "TMPDIR=HERE/nowhere cannot be used (No such file or directory), /tmp is"),
        ("mount -t tmpfs -o ro none tmp", {}, "TMPDIR=HERE/tmp cannot be used (Read-only file system), /tmp is"),
        ("mount -t tmpfs -o size=1m none /dev/shm", {}, "/dev/shm has 1.05 MB free"),
        ("mount -t tmpfs -o ro none /dev/shm", {}, "/dev/shm: Read-only file system"),
        ("", {"PYTHONIOENCODING": "ascii"}, "stdout is ascii"),
        ("", {"NUMBA_CACHE_DIR": "/dev/null/x"}, "(/dev/null/x/hpcfed-"),
    ],
)
def test_what_would_trouble_a_run_is_said_with_the_cure(
    tmp_path: Path, prepare: str, extra: dict[str, str], says: str
) -> None:
    (tmp_path / "tmp").mkdir()
    environ = {"TMPDIR": "HERE/tmp", "XDG_CACHE_HOME": "HERE/cache", "NUMBA_CACHE_DIR": "HERE/numba"} | extra
    said = python_inside(prepare, LOOK, tmp_path, {k: v.replace("HERE", str(tmp_path)) for k, v in environ.items()})
    lines = [line for line in json.loads(said.splitlines()[-1]) if says or "/dev/shm" not in line]
    assert says.replace("HERE", str(tmp_path)) in "\n".join(lines) if says else lines == [], said


def test_a_name_without_an_address() -> None:
    assert own_name("localhost") == ""
    assert "--local-addr 127.0.0.1" in own_name("no-such-host.invalid")
    assert all(isinstance(line, str) and line for line in look_around())
