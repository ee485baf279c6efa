"""What doctor finds on one rank, and over channels that are out of order; tests/ranks/test_doctor.py has several."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hpcfed.cluster.doctor import by_node, examine, facts, notes, report, within_rows
from hpcfed.config import load_recipe
from hpcfed.errors import ConfigError
from hpcfed.transport.launch import Launch
from hpcfed.transport.row import Row
from hpcfed.transport.solo import SoloTransport

ALONE = facts(Launch(), SoloTransport(), load_recipe("digits"))


def test_one_rank_is_well() -> None:
    ranks, done, wrong = examine(SoloTransport(), ALONE)
    assert wrong == [] and ranks == [ALONE]
    assert done[0] == "ring of 1: passed"
    assert [line.split(",")[0] for line in done[1:]] == ["127 votes for: counted 127", "128 votes for: counted 128"]
    table = report(ranks, done, "alone")
    assert table[0].split() == ["rank", "node", "row", "shard", "device", "threads"]
    assert table[1].split()[0] == "0" and table[2] == "1 ranks by alone, votes by alone" and table[-3:] == done


class Forgetful(SoloTransport):
    """Loses a vote out of every 128."""

    def _sum(self, vector: np.ndarray) -> None:
        if vector[1] == 128:
            vector[:2] -= 1


class Zeroless(SoloTransport):
    """Not clean for every byte."""

    def all_gather(self, data: bytes) -> list[bytes]:
        return [data.replace(b"\0", b"")]


def test_a_channel_that_counts_wrong_is_found() -> None:
    _, done, wrong = examine(Forgetful(), ALONE)
    assert wrong == ["128 clients voted +1 and the count is 127: sums over ranks are not exact here"]
    assert done[1].startswith("127 votes for: counted 127") and done[2].startswith("128 votes for: counted 127")


def test_a_channel_that_alters_what_it_carries_is_found() -> None:
    _, done, wrong = examine(Zeroless(), ALONE)
    assert done[0] == "ring of 1: FAILED" and len(wrong) == 1 and "did not come back as it was sent" in wrong[0]


class Stranger(Row):
    """A row in which another rank answers."""

    def gather(self, data: bytes) -> list[bytes]:
        return [b"7"]


def test_ranks_of_a_row_know_one_another() -> None:
    transport = SoloTransport()
    assert within_rows(transport) == ("1 rows of 1 shards: passed", [])
    transport.row = Stranger()
    line, wrong = within_rows(transport)
    assert line == "1 rows of 1 shards: FAILED"
    assert wrong == ["rank 0: in a row with others than mesh.shards=1 says"]


def test_facts_say_where_a_rank_is_or_that_there_is_no_place_for_it() -> None:
    recipe = load_recipe("digits", ["mesh.shards=2", "mesh.threads=3"])
    found = facts(Launch("torchrun", 5, 6, 1, 2, 4), SoloTransport(), recipe)
    named = ("rank", "row", "shard", "threads", "local_size", "size", "restart")
    assert {key: found[key] for key in named} == dict(zip(named, (5, 2, 1, 3, 2, 6, 4), strict=True))
    assert facts(Launch(), SoloTransport(), None)["recipe"] == "none"
    with pytest.raises(ConfigError, match=r"mesh\.shards=2 does not divide the 3 ranks"):
        facts(Launch("torchrun", 0, 3), SoloTransport(), recipe)
    with pytest.raises(ConfigError, match=r"6 rows .* only 5 groups"):
        facts(Launch("torchrun", 0, 6), SoloTransport(), load_recipe("digits"))


def test_notes_are_about_what_stops_nothing(tmp_path: Path) -> None:
    crowded = ALONE | {"threads": 8, "local_size": 3, "cpus": 23}
    assert notes(Launch(), crowded | {"cpus": 24}) == []
    assert notes(Launch(), crowded) == [
        "3 ranks of 8 threads share 23 cores; lower OMP_NUM_THREADS, or start fewer ranks there"
    ]
    nameless = ALONE | {"node": "no-such-host.invalid", "threads": 1, "cpus": 64}
    assert notes(Launch("mpich", 0, 2), nameless | {"backend": "MPI (x)"}) == []
    assert "--local-addr 127.0.0.1" in notes(Launch(), nameless)[0]
    assert "its own host name has no address" in notes(Launch("torchrun", 0, 2), nameless)[0]
    assert by_node(SoloTransport(), ["n1"], ["a", "b"]) == ["n1: a", "n1: b"]
    _, _, wrong = examine(SoloTransport(), ALONE, tmp_path / "runs" / "a")
    assert wrong == [] and not list(tmp_path.iterdir())  # nothing stays behind
