"""The run folder: who may write there, what is never overwritten, and what a crash or a full disk leaves."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hpcfed.errors import RunFolderError
from hpcfed.runs.folder import RunFolder
from hpcfed.runs.read import read_summary
from tests.support.folders import ENV, RECIPE, contents, finished, interrupted
from tests.support.namespaces import python_inside
from tests.support.runs import made_up_summary


def test_new_folder(tmp_path):
    path = tmp_path / "runs" / "a"
    with RunFolder.create(path, RECIPE, ENV, resume=True) as folder:
        assert not folder.resumed and folder.notes == []
        assert (path / "recipe.toml").read_text() == RECIPE
        assert json.loads((path / "env.json").read_text())["python"] == "3.11"
    folder.close()
    assert set(contents(path)) == {"recipe.toml", "env.json"}  # the lock goes with its owner


def test_finished_run_is_never_overwritten(tmp_path):
    path = tmp_path / "a"
    finished(path)
    before = contents(path)
    for resume in (False, True):
        with pytest.raises(RunFolderError, match=r"finished run, and --resume has nothing.*--force"):
            RunFolder.create(path, RECIPE, ENV, resume=resume)
    assert contents(path) == before


def test_force_moves_the_old_run_aside(tmp_path):
    path = tmp_path / "a"
    finished(path)
    (path / "slurm-1.out").write_text("not ours: stays")
    for n in (1, 2):
        old = contents(path)
        with RunFolder.create(path, RECIPE, ENV, force=True) as folder:
            assert not folder.resumed and f"a.old-{n}" in folder.notes[0]
            assert set(contents(path)) == {"recipe.toml", "env.json", "lock", "slurm-1.out"}
            folder.journal.write_bytes(b"x")
        assert contents(tmp_path / f"a.old-{n}") == {k: v for k, v in old.items() if k != "slurm-1.out"}


def test_force_and_resume_together(tmp_path):
    with pytest.raises(RunFolderError, match="give one of them"):
        RunFolder.create(tmp_path / "a", RECIPE, ENV, force=True, resume=True)


def test_unfinished_run_wants_a_decision_and_resumes(tmp_path):
    path = tmp_path / "a"
    interrupted(path)
    before = contents(path)
    with pytest.raises(RunFolderError, match=r"--resume to go on, or --force"):
        RunFolder.create(path, RECIPE, ENV)
    assert contents(path) == before
    with RunFolder.create(path, RECIPE, {"python": "3.12"}, resume=True) as folder:
        assert folder.resumed and folder.journal.read_bytes() == b"three rounds"
        assert contents(path).items() >= before.items()  # something may yet speak against going on
        folder.go_on()
        assert [record["t"] for record in folder.records()] == [0, 1, 2, 3, 4]
        folder.rewind(3)
        folder.log({"t": 4, "loss": 0.25})
        assert [(r["t"], r["loss"]) for r in folder.records()] == [(0, 0.5), (1, 0.5), (2, 0.5), (3, 0.5), (4, 0.25)]
        folder.write_summary(made_up_summary(status="interrupted"))
    env = json.loads((path / "env.json").read_text())
    assert env["python"] == "3.12" and [old["python"] for old in env["earlier"]] == ["3.11"]
    with RunFolder.create(path, RECIPE, ENV, resume=True) as folder:
        folder.go_on()
    assert [old["python"] for old in json.loads((path / "env.json").read_text())["earlier"]] == ["3.11", "3.12"]


def test_resume_with_another_recipe(tmp_path):
    path = tmp_path / "a"
    interrupted(path)
    other = RECIPE.replace("1e-3", "1e-4").replace("eval_every = 5", "eval_every = 1") + "mu = 0.1\n"
    with pytest.raises(RunFolderError) as error:
        RunFolder.create(path, other, ENV, resume=True, allow=["eval_every"])
    assert "algorithm.lr: 0.001 -> 0.0001; algorithm.mu: 'unset' -> 0.1" in str(error.value)
    assert "eval_every" not in str(error.value)
    assert (path / "recipe.toml").read_text() == RECIPE
    with RunFolder.create(path, other, ENV, resume=True, allow=["algorithm.*", "eval_every"]) as folder:
        folder.go_on()
        assert (path / "recipe.toml").read_text() == other


@pytest.mark.parametrize("name", ["recipe.toml", "summary.json", "env.json"])
def test_damaged_files_of_a_run_are_an_error(tmp_path, name):
    path = tmp_path / "a"
    interrupted(path)
    (path / name).write_bytes(b"\xff{")
    with pytest.raises(RunFolderError, match=name):
        RunFolder.create(path, RECIPE, ENV, resume=True)
    with RunFolder.create(path, RECIPE, ENV, force=True):
        assert (tmp_path / "a.old-1" / name).read_bytes() == b"\xff{"


def test_a_run_that_died_before_its_first_round_is_new(tmp_path):
    path = tmp_path / "a"
    with RunFolder.create(path, RECIPE, ENV) as folder:
        folder.log({"t": 0, "loss": 1.0})
    with RunFolder.create(path, RECIPE.replace("10", "20"), ENV) as folder:
        assert not folder.resumed and folder.records() == []


@pytest.mark.parametrize("name", ["recipe.toml", "env.json", "metrics.jsonl", "orbit.safetensors"])
def test_files_that_are_no_run_stay_as_they_are(tmp_path, name):
    (tmp_path / name).write_text("mine")
    for force in (False, True):
        with pytest.raises(RunFolderError, match="no run; choose another"):
            RunFolder.create(tmp_path, RECIPE, ENV, force=force)
    assert contents(tmp_path) == {name: b"mine"}


def test_unfinished_without_journal_cannot_be_resumed(tmp_path):
    with RunFolder.create(tmp_path / "a", RECIPE, ENV) as folder:
        folder.write_summary(made_up_summary(status="interrupted"))
    with pytest.raises(RunFolderError, match="without a journal"):
        RunFolder.create(tmp_path / "a", RECIPE, ENV, resume=True)


def test_folder_in_use(tmp_path):
    with RunFolder.create(tmp_path, RECIPE, ENV):
        for force, resume in ((False, False), (True, False), (False, True)):
            with pytest.raises(RunFolderError, match=f"in use by process {os.getpid()} on "):
                RunFolder.create(tmp_path, RECIPE, ENV, force=force, resume=resume)
    with RunFolder.create(tmp_path, RECIPE, ENV):
        pass


def test_kill_9_frees_the_folder_but_not_before(tmp_path):
    code = (
        "import sys, time\nfrom hpcfed.runs.folder import RunFolder\n"
        f"folder = RunFolder.create(sys.argv[1], {RECIPE!r}, {ENV!r})\n"
        "folder.journal.write_bytes(b'x')\nprint('ready', flush=True)\ntime.sleep(100)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a")]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3])
    try:
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        with pytest.raises(RunFolderError, match=f"in use by process {child.pid} on "):
            RunFolder.create(tmp_path / "a", RECIPE, ENV, resume=True)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert (tmp_path / "a" / "lock").exists()
    with RunFolder.create(tmp_path / "a", RECIPE, ENV, resume=True) as folder:
        assert folder.resumed


def test_a_lock_file_that_was_replaced_locks_nothing(tmp_path):
    """The owner before us removes its lock file: whoever opened that file must open the new one instead."""
    first = RunFolder.create(tmp_path, RECIPE, ENV)
    (tmp_path / "lock").unlink()
    second = RunFolder.create(tmp_path, RECIPE, ENV)
    assert f"process {os.getpid()}" in (tmp_path / "lock").read_text()
    second.close()
    first.close()


def test_paths_that_cannot_be_a_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    for bad in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(RunFolderError, match="is a file or lies below one"):
            RunFolder.create(bad, RECIPE, ENV)
    with pytest.raises(RunFolderError, match="cannot write the run here"):
        RunFolder.create("/proc/run", RECIPE, ENV)
    with pytest.raises(RunFolderError, match="cannot write the run here"):
        RunFolder.create("/proc/self", RECIPE, ENV)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(RunFolderError, match="cannot write the run here"):
        RunFolder.create(tmp_path, RECIPE, ENV)


def test_full_disk(tmp_path):
    interrupted(tmp_path / "a")
    with RunFolder.create(tmp_path / "a", RECIPE, ENV, resume=True) as folder:
        before = contents(tmp_path / "a")
        old = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before["metrics.jsonl"]) + 5, old[1]))
        try:
            with pytest.raises(RunFolderError, match=r"metrics.jsonl: cannot write.*free space"):
                folder.log({"t": 5, "loss": 1.0})
            with pytest.raises(RunFolderError, match=r"summary.json: cannot write"):
                folder.write_summary(made_up_summary())
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old)
        assert "summary.json" not in contents(tmp_path / "a")
        assert [record["t"] for record in folder.records()] == [0, 1, 2, 3, 4]  # the torn line is left out
    with RunFolder.create(tmp_path / "a", RECIPE, ENV, resume=True) as folder:
        folder.rewind(9)
        folder.log({"t": 5, "loss": 1.0})
        assert [record["t"] for record in folder.records()] == [0, 1, 2, 3, 4, 5]


def test_metrics_lines_are_json_whatever_the_numbers(tmp_path):
    with RunFolder.create(tmp_path, RECIPE, ENV) as folder:
        folder.log(
            {"t": 1, "loss": float("nan"), "n": np.int64(3), "x": np.float32(0.5), "y": [np.inf], "p": Path("a")}
        )
        text = (tmp_path / "metrics.jsonl").read_text()  # readable at once, not at the end
    assert text == '{"t": 1, "loss": null, "n": 3, "x": 0.5, "y": [null], "p": "a"}\n'


def test_summary_needs_every_key(tmp_path):
    with RunFolder.create(tmp_path, RECIPE, ENV) as folder:
        incomplete = made_up_summary()
        del incomplete["orbit_bytes"]
        with pytest.raises(AssertionError, match="orbit_bytes"):
            folder.write_summary(incomplete)
        with pytest.raises(AssertionError):
            folder.write_summary(made_up_summary(status="done"))
        folder.write_summary(made_up_summary(loss_after=float("nan")))
        assert read_summary(tmp_path)["loss_after"] is None


#: Shell commands before; the run folder; where the old run goes.
PLACES = [
    ("mkdir out", "out", "out.old-1"),
    ("mkdir out; mount -t tmpfs none out", "out", "out/old-1"),
    ("mkdir real out; mount --bind real out", "out", "out/old-1"),  # the same disk, and no way to rename
    ("mkdir real; mount -t tmpfs none real; ln -s real out", "out", "real/old-1"),
    ("mkdir real; ln -s real out", "out", "real.old-1"),
    ("mkdir r; mount -t tmpfs none r; mkdir r/a; mount -t tmpfs none r/a; mount -o remount,ro r", "r/a", "r/a/old-1"),
    (f"mkdir {'n' * 252}", "n" * 252, "n" * 252 + "/old-1"),
    ("mkdir -p out/old-1; mount -t tmpfs none out; mkdir out/old-1", "out", "out/old-2"),
]  # fmt: skip
AGAIN = """
import sys
from pathlib import Path
from hpcfed.runs.folder import RunFolder
from tests.support.folders import ENV, RECIPE, contents, finished
out, old = Path(sys.argv[1]), Path(sys.argv[2])
finished(out)
before = contents(out)
with RunFolder.create(out, RECIPE, ENV, force=True) as folder:
    assert str(old.resolve()) in folder.notes[0], folder.notes
    assert contents(old) == before, sorted(contents(old))
    assert set(contents(out)) == {"env.json", "recipe.toml", "lock"}, contents(out)
print("moved")
"""


@pytest.mark.parametrize(("prepare", "out", "old"), PLACES, ids=[place[0][:60] for place in PLACES])
def test_an_old_run_is_moved_aside_wherever_it_lies(tmp_path: Path, prepare: str, out: str, old: str) -> None:
    code = AGAIN.replace("sys.argv[1]", repr(out)).replace("sys.argv[2]", repr(old))
    assert python_inside(prepare, code, tmp_path).endswith("moved\n"), python_inside(prepare, code, tmp_path)


def test_an_old_run_that_cannot_be_moved_stays_whole(tmp_path: Path) -> None:
    code = """
from pathlib import Path
import subprocess
from hpcfed.errors import RunFolderError
from hpcfed.runs.folder import RunFolder
from tests.support.folders import ENV, RECIPE, contents, finished
out = Path("out")
finished(out)
subprocess.run(["mount", "--bind", out / "metrics.jsonl", out / "metrics.jsonl"], check=True)  # of a container, say
before = contents(out)
try:
    RunFolder.create(out, RECIPE, ENV, force=True)
except RunFolderError as error:
    print(error)
assert contents(out) == before and [path.name for path in out.iterdir() if path.is_dir()] == [], list(out.iterdir())
assert not Path("out.old-1").exists()
"""
    said = python_inside("mkdir out", code, tmp_path)
    assert said.startswith("out: cannot write the run here: Device or resource busy; ") and said.count("\n") == 1, said


def test_a_link_to_nothing_is_called_one(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("nowhere")
    with pytest.raises(RunFolderError, match="links to nowhere, which is not there"):
        RunFolder.create(tmp_path / "out", RECIPE, ENV)
