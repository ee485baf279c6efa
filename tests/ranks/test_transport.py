"""Alone and over torch.distributed: the same checks on 1, 2 and 3 ranks, and what happens when a rank dies."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.harness import fails, launch, run_ranks
from tests.support.transport_checks import PHOENIX, STUMBLER, die, disagree, everything


@pytest.mark.parametrize("n", [1, 2, 3])
def test_every_check(n: int) -> None:
    name = "alone" if n == 1 else "torch.distributed (gloo)"
    assert run_ranks(n, everything) == [[name, row, n] for row in range(n)]


def test_under_torchrun_itself() -> None:
    assert [row for _, row, _ in run_ranks(2, everything, launcher="torchrun")] == [0, 1]


@pytest.mark.parametrize("who", [0, 1])
def test_a_row_that_raises_ends_the_job_with_its_own_message(who: int) -> None:
    output = fails(2, die, "raise", who, launcher="torchrun").output
    assert f"hpcfed: rank {who} (row {who}): ValueError: boom in row {who}\nTraceback" in output
    assert output.count("Traceback (most recent call last):\n  File") <= 2  # its own and torchrun's


@pytest.mark.parametrize("who", [0, 1])
def test_a_killed_row_ends_the_job(who: int) -> None:
    assert "signal 9" in fails(2, die, "kill", who, launcher="torchrun").output.lower().replace("sigkill", "signal 9")


@pytest.mark.parametrize("who", [0, 2])
def test_rows_notice_a_killed_one_without_a_launcher_while_they_compute(who: int) -> None:
    output = fails(3, die, "kill", who, True).output
    for row in {0, 1, 2} - {who}:
        assert f"hpcfed: rank {row} (row {row}): lost row {who} (its connection closed)" in output


def test_an_error_of_all_rows_is_said_once() -> None:
    output = fails(3, disagree).output
    assert output == "hpcfed: the recipe differs between rows (row 0: recipe 0; row 1: recipe 1; row 2: recipe 2)\n"


@pytest.mark.parametrize("who", [0, 1])
def test_a_rank_that_ends_before_the_ranks_have_met(who: int, tmp_path: Path) -> None:
    script = tmp_path / "stumbler.py"
    script.write_text(STUMBLER)
    finished = launch("torchrun", 2, [str(script), str(who)], timeout=60)
    assert finished.code != 0 and f"hpcfed: rank {who}: ValueError: boom before the start" in finished.output


def test_torchrun_restarts_a_job(tmp_path: Path) -> None:
    script = tmp_path / "phoenix.py"
    script.write_text(PHOENIX)
    finished = launch("torchrun", 2, ["--max-restarts=1", str(script)])
    assert finished.code == 0 and finished.output.count("risen [b'\\x00', b'\\x01']") == 2, finished.output
