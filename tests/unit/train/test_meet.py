"""Alone: an error is raised to the caller, as it is. tests/ranks and tests/mpi have what several ranks do."""

from __future__ import annotations

import pytest

from hpcfed.config import Recipe
from hpcfed.errors import ConfigError
from hpcfed.train.meet import meet, one_row
from hpcfed.transport.launch import Launch
from tests.support.digits import tiny


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_STEP_ID"):
        monkeypatch.delenv(name, raising=False)


def test_one_rank_meets_itself():
    recipe = tiny("mesh.device=cpu")
    with meet(lambda: recipe) as meeting:
        assert meeting.recipe is recipe and meeting.launch == Launch()
        transport = meeting.transport
        assert (transport.name, transport.rank, transport.rows, transport.row.shards) == ("alone", 0, 1, 1)
        assert transport.row.device == "cpu"
    with one_row() as row:
        assert (row.index, row.shard, row.shards) == (0, 0, 1)


def test_the_callers_own_error_comes_back_to_it():
    mistake = ConfigError("no such recipe")

    def fails() -> Recipe:
        raise mistake

    with pytest.raises(ConfigError) as caught, meet(fails):
        pytest.fail("met without a recipe")
    assert caught.value is mistake
    for error in (ValueError("ours"), KeyboardInterrupt(), SystemExit(3)):
        with pytest.raises(type(error)) as raised, meet(tiny):
            raise error
        assert raised.value is error
        with pytest.raises(type(error)) as raised, one_row():
            raise error
        assert raised.value is error


def test_shards_that_the_launch_does_not_have_are_refused():
    with pytest.raises(ConfigError, match=r"mesh\.shards=2 does not divide the 1 rank launched"):
        with meet(lambda: tiny("mesh.shards=2")):
            pytest.fail("met as half a row")
