"""What a failing rank prints, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpcfed.errors import ConfigError
from hpcfed.transport.base import PeerLostError
from hpcfed.transport.guard import fail, guard
from hpcfed.transport.launch import Launch
from hpcfed.transport.solo import SoloTransport


def said(where: SoloTransport | Launch, error: BaseException, capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    with pytest.raises(SystemExit) as ended:
        fail(where, error)
    return ended.value.code, capsys.readouterr().err


def test_a_users_fault_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(SoloTransport(), ConfigError("lr=0 moves nothing"), capsys) == (1, "hpcfed: lr=0 moves nothing\n")
    code, text = said(Launch("torchrun", 1, 2), PeerLostError("lost row 0"), capsys)
    assert (code, text) == (1, "hpcfed: rank 1: lost row 0\n")


def test_our_own_fault_brings_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = said(SoloTransport(), AssertionError("3 != 4"), capsys)
    assert (
        code == 1 and text.startswith("hpcfed: AssertionError: 3 != 4\n") and text.endswith("AssertionError: 3 != 4\n")
    )


def test_an_error_of_all_rows_is_said_by_row_0_only(capsys: pytest.CaptureFixture[str]) -> None:
    transport = SoloTransport()
    error = transport.everywhere(ConfigError("too few groups"))
    assert said(transport, error, capsys) == (1, "hpcfed: too few groups\n")
    transport.rank = 1
    assert said(transport, error, capsys) == (1, "")


class Ending(SoloTransport):
    """Notes how it is left."""

    def __init__(self, torn: bool = False) -> None:
        super().__init__()
        self.left, self.torn = list[str](), torn

    def abort(self, code: int) -> None:  # type: ignore[override]
        self.left.append(f"abort {code}")

    def close(self) -> None:
        self.left.append("close")
        if self.torn:
            raise PeerLostError("lost row 1")


@pytest.mark.parametrize(
    ("shared", "torn", "left"),
    [
        (True, False, ["close"]),  # all are here: nobody is torn down
        (True, True, ["close", "abort 1"]),
        (False, False, ["abort 1", "close"]),  # the others wait for this row
    ],
)
def test_rows_that_fail_alike_leave_together(
    shared: bool, torn: bool, left: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    transport, error = Ending(torn), ConfigError("too few groups")
    assert said(transport, transport.everywhere(error) if shared else error, capsys)[0] == 1
    assert transport.left == left


@pytest.mark.parametrize(("code", "ends"), [(None, None), (0, 0), (7, 7), ("no", 1)])
def test_exit_statuses_pass_through(code: object, ends: object, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, guard(SoloTransport()):
        raise SystemExit(code)
    assert ended.value.code == ends
    assert capsys.readouterr().err == ("hpcfed: no\n" if code == "no" else "")


def test_an_interrupt_is_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(SoloTransport(), KeyboardInterrupt(), capsys) == (130, "hpcfed: interrupted\n")


@pytest.mark.parametrize(
    ("error", "left", "later"),
    [
        (ConfigError("lr=0"), "hpcfed: lr=0", 0),
        (ConfigError("größe\nzweite"), "hpcfed: größe\nzweite", 0),
        (PeerLostError("lost row 1"), "hpcfed: lost row 1", 1),  # another rank is the cause
        (AssertionError("3 != 4"), "hpcfed: AssertionError: 3 != 4", 0),  # the rank prints where
        (KeyboardInterrupt(), "hpcfed: interrupted", 0),
        (SystemExit("no"), "hpcfed: no", 0),
        (SystemExit(3), None, 0),
        (SystemExit(0), None, 0),
    ],
    ids=repr,
)
def test_torchruns_agent_finds_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, left: str | None, later: int
) -> None:
    file = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(file))
    monkeypatch.setattr("hpcfed.transport.guard.time.time", lambda: 100.5)
    with pytest.raises(SystemExit):
        fail(SoloTransport(), error)
    assert (json.loads(file.read_text()) if file.exists() else None) == (
        None if left is None else {"message": left, "timestamp": 100 + later}
    )


class OutOfMemoryError(RuntimeError):
    """As torch's, of a GPU."""


def test_a_gpu_that_is_full_says_what_to_lower(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = said(SoloTransport(), OutOfMemoryError("CUDA out of memory.\nTried to allocate"), capsys)
    assert code == 1 and text.startswith("hpcfed: CUDA out of memory.; lower clients.max_batch_tokens or clients.batch")
    assert "Traceback" not in text


def test_a_block_that_ends_well_ends_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with guard(SoloTransport()), guard(Launch()):
        pass
    with pytest.raises(SystemExit) as ended, guard(Launch("torchrun", 0, 2)):
        raise ConfigError("no data")
    assert ended.value.code == 1 and capsys.readouterr() == ("", "hpcfed: rank 0: no data\n")
