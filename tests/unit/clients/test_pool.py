"""The pool: who votes, with whom, on what; functions of (run seed, client, round) and of nothing else."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hpcfed.clients import Pool
from hpcfed.transport.mesh import MeshShape


def pool(sizes: list[int], cohort: int | None = None, group: int = 1, batch: int = 4, seed: int = 0) -> Pool:
    parts = np.split(np.arange(sum(sizes)) * 3, np.cumsum(sizes)[:-1])
    return Pool(parts, cohort or len(sizes), group, batch, seed)


@given(n=st.integers(1, 60), data=st.data(), t=st.integers(0, 10**6), seed=st.integers(0, 2**63 - 1))
def test_cohort_is_a_sorted_sample_of_the_clients(n, data, t, seed):
    size = data.draw(st.integers(1, n))
    cohort = pool([1] * n, size, seed=seed).cohort(t)
    assert len(cohort) == size and cohort == sorted(set(cohort)) and cohort[0] >= 0 and cohort[-1] < n
    assert pool([1] * n, size, group=3, batch=1, seed=seed).cohort(t) == cohort  # groups and batches are no part of it


def test_cohorts_differ_by_round_and_seed_and_leave_nobody_out():
    cohorts = [tuple(pool([1] * 20, 5).cohort(t)) for t in range(200)]
    assert len(set(cohorts)) > 190
    assert {tuple(pool([1] * 20, 5, seed=s).cohort(0)) for s in range(50)} != {cohorts[0]}
    votes = np.bincount(np.concatenate(cohorts), minlength=20)
    assert votes.min() > 25 and votes.max() < 80  # 50 expected, standard deviation 6.1


def test_everybody_votes_when_the_cohort_is_all():
    assert pool([1] * 7).cohort(3) == list(range(7))


@given(n=st.integers(1, 50), group=st.integers(1, 60), data=st.data(), t=st.integers(0, 1000))
def test_groups_cut_the_cohort_by_client_id(n, group, data, t):
    p = pool([1] * n, data.draw(st.integers(1, n)), group)
    groups = p.groups(t)
    assert [client for members in groups.values() for client in members] == p.cohort(t)
    assert list(groups) == sorted(groups) and all(groups.values())
    assert all(client // group == number for number, members in groups.items() for client in members)
    assert max(groups) < p.n_groups and (p.n_groups - 1) * group < n <= p.n_groups * group


@given(n=st.integers(1, 40), group=st.integers(1, 10), t=st.integers(0, 50), data=st.data())
def test_rows_share_the_cohort_whatever_their_number(n, group, t, data):
    p = pool([5] * n, max(1, n // 2), group)
    rows = data.draw(st.integers(1, p.n_groups))
    mesh, groups = MeshShape(rows, 1), p.groups(t)
    hosted = [
        [client for g in mesh.groups_of_row(row, p.n_groups) if g in groups for client in groups[g]]
        for row in range(rows)
    ]
    assert [client for row in hosted for client in row] == p.cohort(t)


@given(size=st.integers(1, 30), batch=st.integers(1, 30), t=st.integers(0, 10**6), seed=st.integers(0, 2**63 - 1))
def test_batch_is_drawn_without_replacement_from_the_clients_own(size, batch, t, seed):
    p = pool([3, size, 4], batch=batch, seed=seed)
    drawn = p.batch(1, t)
    assert drawn.dtype == np.int64 and len(drawn) == min(size, batch) == len(set(drawn.tolist()))
    assert set(drawn.tolist()) <= set(p.parts[1].tolist())
    others = pool([3, size, 40, 50, 60], cohort=2, group=2, batch=batch, seed=seed)  # other clients, groups, cohorts
    assert np.array_equal(others.batch(1, t), drawn)


def test_small_client_brings_all_it_has():
    p = pool([2, 9], batch=4)
    assert p.batch(0, 0).tolist() == p.batch(0, 1).tolist() == p.parts[0].tolist()


def test_batches_differ_by_round_client_and_seed():
    parts = [np.arange(1000)] * 2
    batches = {tuple(Pool(parts, 2, 1, 8, seed).batch(c, t)) for seed in (0, 1) for c in (0, 1) for t in range(20)}
    assert len(batches) == 80


def test_every_example_gets_its_turn():
    p = pool([30], batch=10)
    seen = np.bincount(np.concatenate([p.batch(0, t) for t in range(300)]) // 3, minlength=30)
    assert seen.min() > 60 and seen.max() < 140  # 100 expected, standard deviation 8.2
