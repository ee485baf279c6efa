"""Which folder keeps compiled kernels, and who may write there; on real mounts where it matters."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from hpcfed import places
from hpcfed.places import kernel_folders, own_temporary, temporary, trouble, writable_triton_cache
from tests.support.folders import file_size
from tests.support.namespaces import python_inside

READ_ONLY = "mount -t tmpfs -o ro none"
CHOICE = """
import json
from hpcfed import places
places.NOISE = places.Path("noise")
tried = list(places.kernel_folders())
print(json.dumps([str(next((folder for folder, why in tried if not why), "")), [why for folder, why in tried]]))
"""


@pytest.mark.parametrize(
    ("prepare", "environ", "chosen", "reasons"),
    [
        ("", {}, "noise/__pycache__/kernels-", ["", "", ""]),
        (f"{READ_ONLY} noise", {}, "HERE/home/.cache/numba/hpcfed-", ["Read-only file system", "", ""]),
        (f"{READ_ONLY} noise", {"XDG_CACHE_HOME": "HERE/xdg"}, "HERE/xdg/numba/", ["Read-only file system", "", ""]),
        (f"{READ_ONLY} noise; {READ_ONLY} home", {}, "HERE/tmp/hpcfed-kernels-", ["Read-only file system"] * 2 + [""]),
        ("", {"NUMBA_CACHE_DIR": "HERE/mine"}, "HERE/mine/hpcfed-", ["", "", "", ""]),
        (f"{READ_ONLY} mine", {"NUMBA_CACHE_DIR": "HERE/mine"}, "noise/", ["Read-only file system", "", "", ""]),
        ("mount -t tmpfs -o size=8k none noise", {}, "HERE/home/", ["No space left on device", "", ""]),
        ("chmod 777 home/.cache/numba/*", {}, "noise/", ["", "everybody may write there", ""]),
        ("chown 12345 home/.cache/numba/*", {}, "noise/", ["", "belongs to user 12345", ""]),
        ("chmod 770 tmp/hpcfed-kernels-*", {}, "noise/", ["", "", "others may write there"]),
        ("chown 12345 tmp/hpcfed-kernels-*", {}, "noise/", ["", "", "others may write there"]),
        ("rm -r tmp/hpc*; ln -s $PWD/mine tmp/hpcfed-kernels-0", {}, "noise/", ["", "", "others may write there"]),
        (
            f"{READ_ONLY} noise; {READ_ONLY} home; {READ_ONLY} tmp",
            {"HOME": "HERE/home"},
            "HERE/fallback/hpcfed-kernels-",
            ["Read-only file system"] * 2 + [""],
        ),
    ],
)
def test_kernels_are_kept_in_the_first_folder_that_can_be_written(
    tmp_path: Path, prepare: str, environ: dict[str, str], chosen: str, reasons: list[str]
) -> None:
    kernels = Path("hpcfed-kernels-" + str(os.geteuid()))
    for name in ("noise", "home/.cache/numba", "mine", "xdg", "fallback"):
        (tmp_path / name).mkdir(parents=True)
    nothing = hashlib.blake2b(digest_size=8).hexdigest()  # of a package without sources
    (tmp_path / "home/.cache/numba" / f"hpcfed-{nothing}").mkdir()
    (tmp_path / "tmp" / kernels).mkdir(parents=True, mode=0o700)
    extra = {
        "HOME": str(tmp_path / "home"),
        "TMPDIR": str(tmp_path / "tmp"),
        "NUMBA_CACHE_DIR": "",
        "XDG_CACHE_HOME": "",
    }
    extra |= {name: value.replace("HERE", str(tmp_path)) for name, value in environ.items()}
    code = CHOICE
    if "fallback" in chosen:  # what Python takes where TMPDIR cannot be used
        code = (
            f"import tempfile; tempfile._candidate_tempdir_list = lambda: [{str(tmp_path / 'fallback')!r}]\n" + CHOICE
        )
    said = python_inside(prepare, code, tmp_path, extra)
    folder, why = json.loads(said.splitlines()[-1])
    assert folder.startswith(chosen.replace("HERE", str(tmp_path))), said
    assert why == reasons


def test_kernels_of_other_sources_lie_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "NOISE", tmp_path)
    found = set()
    for text in ("a = 1", "a = 2"):
        (tmp_path / "cpu.py").write_text(text)
        places._version.cache_clear()
        found.add(next(iter(kernel_folders()))[0])
    places._version.cache_clear()
    assert len(found) == 2


def test_what_is_wrong_with_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert trouble(tmp_path) == "" and list(tmp_path.iterdir()) == [tmp_path / "file"]
    assert trouble(tmp_path / "nowhere") == "No such file or directory"
    assert trouble(tmp_path / "file") == "Not a directory"
    with file_size(4096):
        assert trouble(tmp_path)


def test_a_temporary_folder_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = own_temporary("mine")
    assert folder == own_temporary("mine") and folder.stat().st_mode & 0o777 == 0o700
    assert temporary() == f"TMPDIR ({tmp_path})"
    for mode in (0o777, 0o770, 0o705, 0o720, 0o750, 0o701):
        folder.chmod(mode)
        with pytest.raises(PermissionError, match="others may write there"):
            own_temporary("mine")


@pytest.mark.parametrize("what", ["file", "link"])
def test_something_else_under_its_name_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = own_temporary("mine")
    folder.rmdir()
    if what == "file":
        folder.write_text("")
    else:
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError):
        own_temporary("mine")


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"HOME": "HERE"}, None),
        ({"HOME": "/dev/null"}, "HERE/hpcfed-triton"),
        ({"HOME": "/dev/null", "TRITON_CACHE_DIR": "/x"}, "/x"),
        ({"HOME": "/dev/null", "TRITON_HOME": "/x"}, None),
    ],
)
def test_triton_gets_a_folder_where_its_own_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], expected: str | None
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(os, "environ", {name: value.replace("HERE", str(tmp_path)) for name, value in environ.items()})
    writable_triton_cache()
    got = os.environ.get("TRITON_CACHE_DIR")
    assert got == expected if expected is None else (got or "").startswith(expected.replace("HERE", str(tmp_path)))
