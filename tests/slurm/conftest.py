"""One cluster for all tests of this folder; it leaves no process, folder or shared memory behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.slurm_cluster import Cluster, need_slurm


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    need_slurm()
    with Cluster() as cluster:
        yield cluster
    assert not cluster.left()
