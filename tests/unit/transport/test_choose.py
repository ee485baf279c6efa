"""Which transport a launch gets, and what a failing rank prints."""

from __future__ import annotations

import pytest

from hpcfed.errors import ConfigError
from hpcfed.transport.base import PeerLostError
from hpcfed.transport.choose import choose
from hpcfed.transport.guard import fail, guard
from hpcfed.transport.launch import Launch
from hpcfed.transport.solo import SoloTransport


@pytest.mark.parametrize("launcher", ["alone", "torchrun", "openmpi", "slurm"])
@pytest.mark.parametrize("setting", ["auto", "torch", "mpi"])
def test_one_rank_talks_to_nobody(launcher: str, setting: str) -> None:
    assert isinstance(choose(Launch(launcher), setting), SoloTransport)  # type: ignore[arg-type]


def test_torch_under_mpirun_asks_where_to_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.delenv("MASTER_PORT", raising=False)
    with pytest.raises(ConfigError, match="MASTER_ADDR"):
        choose(Launch("openmpi", 0, 2), "torch")


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


@pytest.mark.parametrize(("code", "ends"), [(None, None), (0, 0), (7, 7), ("no", 1)])
def test_exit_statuses_pass_through(code: object, ends: object, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, guard(SoloTransport()):
        raise SystemExit(code)
    assert ended.value.code == ends
    assert capsys.readouterr().err == ("hpcfed: no\n" if code == "no" else "")


def test_an_interrupt_is_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(SoloTransport(), KeyboardInterrupt(), capsys) == (130, "hpcfed: interrupted\n")
