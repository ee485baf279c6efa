"""Which transport a launch gets."""

from __future__ import annotations

import pytest

from hpcfed.errors import ConfigError
from hpcfed.transport.choose import choose
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
