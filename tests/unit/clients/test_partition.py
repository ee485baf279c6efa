"""Partitions: every example once, nobody empty, the skew that was asked for, and the same on every rank."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcfed import clients as dealing
from hpcfed.clients import PARTITIONS, Deal, Parts, Pool, partition_report
from hpcfed.errors import ConfigError, DataError

SCARCE = {"dirichlet-balanced"}  # it takes ten examples a client, and a beta that lets all have them
NAMES = [str(c) for c in range(10)]


def labels_of(n: int, classes: int = 10, seed: int = 0) -> np.ndarray:
    return np.random.Generator(np.random.Philox(seed)).integers(0, classes, n)


def partition(labels: np.ndarray, clients: int, scheme: str, ids=None, **more) -> Parts:
    return dealing.partition(scheme, Deal(labels, clients, owners=ids, **more))


def check(parts, n, clients):
    assert len(parts) == clients and all(len(part) for part in parts)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(n))
    assert all(part.dtype == np.int64 and (np.diff(part) > 0).all() for part in parts)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 200),
    share=st.floats(0, 1),
    scheme=st.sampled_from(list(PARTITIONS)),
    beta=st.sampled_from([0.01, 0.3, 1.0, 100.0]),
    seed=st.integers(0, 2**64 - 1),
)
def test_every_example_has_one_owner_and_every_client_an_example(n, share, scheme, beta, seed):
    clients = max(1, int(share * n) // (20 if scheme in SCARCE else 1))
    if scheme in SCARCE:
        n, beta = max(n, 10), 100.0
    more = {"ids": np.arange(n) % clients, "shards_per_client": 1}
    parts = partition(labels_of(n), clients, scheme, beta=beta, seed=seed, **more)
    check(parts, n, clients)
    again = partition(labels_of(n), clients, scheme, beta=beta, seed=seed, **more)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))


@pytest.mark.parametrize("scheme", [scheme for scheme in PARTITIONS if scheme not in SCARCE])
def test_ten_thousand_clients(scheme):
    labels = labels_of(50_000)
    parts = partition(labels, 10_000, scheme, beta=0.1, seed=1, ids=np.arange(50_000) // 4)
    check(parts, 50_000, 10_000)
    assert partition_report(parts, labels, NAMES).counts.shape == (10_000, 10)


@pytest.mark.parametrize("scheme", ["iid", "quantity"])
def test_a_client_costs_its_indices_and_little_more(scheme):
    clients, held = 20_000, 4
    labels = labels_of(clients * held)
    tracemalloc.start()
    try:
        parts = partition(labels, clients, scheme, seed=1)
        partition_report(parts, labels, NAMES).data()
        pool = Pool(parts, clients, 100, 4, 0)
        voters = sum(len(members) for t in range(2) for members in pool.groups(t).values())
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # 32 bytes of indices, 8 of offsets; at the peak the report's counts too, 80 for ten classes and 8 for their sums
    assert voters == 2 * clients and kept / clients < 48 and peak / clients < 160


@pytest.mark.parametrize("scheme", list(PARTITIONS))
def test_another_seed_is_another_partition(scheme):
    labels = labels_of(500)
    one, two = (partition(labels, 5, scheme, seed=seed, ids=np.arange(500) % 20) for seed in (1, 2))
    assert not all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


def test_iid_is_even_and_alike():
    labels = labels_of(5003)
    report = partition_report(partition(labels, 10, "iid"), labels, NAMES)
    assert report.sizes.max() - report.sizes.min() <= 1 and report.skew < 0.1


def test_small_beta_means_few_classes_a_client_and_large_beta_all_alike():
    labels = labels_of(5000)
    skews = [partition_report(partition(labels, 10, "dirichlet", beta=b), labels, NAMES).skew for b in (0.05, 1.0, 1e4)]
    assert skews[0] > 0.6 > 0.5 > skews[1] > 0.2 > 0.05 > skews[2]


def test_dirichlet_gives_class_shares_with_the_mean_and_spread_of_the_distribution():
    labels = labels_of(20_000, classes=2)
    parts = [part for seed in range(40) for part in partition(labels, 5, "dirichlet", beta=1.0, seed=seed)]
    shares = np.array([np.bincount(labels[part], minlength=2) for part in parts]) / np.bincount(labels)
    assert abs(shares.mean() - 1 / 5) < 1e-3  # Dirichlet(1, 1, 1, 1, 1): mean 1/5, variance (1/5)(4/5)/6
    assert abs(shares.std() - np.sqrt(4 / 25 / 6)) < 0.02


def test_shards_bound_the_classes_a_client_holds():
    labels = np.repeat(np.arange(10), 100)
    counts = partition_report(partition(labels, 10, "shards", shards_per_client=2, seed=4), labels, NAMES).counts
    assert (counts.sum(axis=1) == 100).all() and ((counts > 0).sum(axis=1) <= 2).all()


def test_quantity_skews_sizes_and_not_classes():
    labels = labels_of(20_000)
    report = partition_report(partition(labels, 10, "quantity", beta=0.5, seed=3), labels, NAMES)
    even = partition_report(partition(labels, 10, "quantity", beta=1e5, seed=3), labels, NAMES)
    assert report.sizes.max() > 5 * np.median(report.sizes) and even.sizes.max() < 1.1 * even.sizes.min()
    large = report.counts[report.sizes > 1000]
    assert np.abs(large / large.sum(axis=1, keepdims=True) - 0.1).max() < 0.05


def test_natural_keeps_owners_whole():
    ids = np.array(["ann", "bob", "cat", "dan", "eve"])[labels_of(100, classes=5, seed=2)]
    parts = partition(labels_of(100), 5, "natural", ids=ids)
    assert all(len(set(ids[part])) == 1 for part in parts)
    two = partition(labels_of(100), 2, "natural", ids=ids)
    assert sorted(len(set(ids[part])) for part in two) == [2, 3]
    assert not set(ids[two[0]]) & set(ids[two[1]])


@pytest.mark.parametrize(
    ("arguments", "more", "words"),
    [
        ((3, 4, "iid"), {}, "clients.count=4: there are only 3 training examples"),
        ((10, 4, "shards"), {"shards_per_client": 3}, "at most 2 shards a client"),
        ((10, 4, "natural"), {}, "clients.id_column"),
        ((10, 4, "natural"), {"ids": ["a", "b"] * 5}, "only 2 owners; use clients.count=2 or less"),
        ((10, 4, "dirichle"), {}, "did you mean dirichlet?"),
        ((39, 4, "dirichlet-balanced"), {}, "39 examples give no 4 clients 10 each; use clients.count=3 or less"),
        ((9, 4, "dirichlet-balanced"), {}, "a client has 10 examples, and there are only 9"),
        ((250, 20, "dirichlet-balanced"), {"beta": 1e-3}, "use a larger clients.beta than 0.001, or fewer clients"),
        (
            (12, 4, "iid"),
            {"groups": np.arange(12) % 3},
            "only 3 training examples; use clients.count=3 or less (groups",
        ),
        ((12, 4, "shards"), {"groups": np.arange(12) % 6}, "8 shards of only 6 examples"),
    ],
)
def test_impossible_partitions_say_what_would_do(arguments, more, words):
    n, clients, scheme = arguments
    with pytest.raises(ConfigError) as raised:
        partition(labels_of(n), clients, scheme, **more)
    assert words in str(raised.value)


@pytest.mark.parametrize("scheme", [scheme for scheme in PARTITIONS if scheme not in SCARCE])
def test_groups_are_not_divided(scheme):
    rng = np.random.Generator(np.random.Philox(5))
    groups = rng.integers(0, 40, 300) * 7
    parts = partition(labels_of(300), 6, scheme, groups=groups, ids=groups % 12, seed=4)
    check(parts, 300, 6)
    held = [set(groups[part]) for part in parts]
    assert sum(map(len, held)) == len(set(groups))
    # Groups are dealt as examples are, in the order, and by the classes, of their first ones.
    first = np.sort(np.unique(groups, return_index=True)[1])
    alone = partition(labels_of(300)[first], 6, scheme, ids=groups[first] % 12, seed=4)
    assert [set(groups[first[part]]) for part in alone] == held


@pytest.mark.parametrize("scheme", list(PARTITIONS))
def test_groups_of_one_example_are_no_groups(scheme):
    more = {"ids": np.arange(200) % 5, "beta": 5.0, "seed": 2}
    alone = partition(labels_of(200), 4, scheme, groups=np.arange(200)[::-1], **more)
    assert [part.tolist() for part in alone] == [part.tolist() for part in partition(labels_of(200), 4, scheme, **more)]


def test_a_group_of_two_owners_is_refused_where_owners_count():
    ids, groups = np.array(["ann", "bob", "cat", "dan"]), np.array([0, 1, 1, 2])
    with pytest.raises(DataError, match=r"one group belong to 'bob' and to 'cat'.*must have one owner"):
        partition(labels_of(4), 2, "natural", ids=ids, groups=groups)
    check(partition(labels_of(4), 2, "iid", ids=ids, groups=groups), 4, 2)


def test_a_partition_of_the_users_own_does_not_divide_groups_either(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(
        "import numpy as np\ndef halves(deal):\n"
        "    assert deal.groups is None and len(deal.labels) == len(deal.owners) == 3\n"
        "    return np.array_split(np.arange(3), deal.clients)\n"
    )
    parts = partition(
        labels_of(5), 2, f"{file}:halves", ids=["a", "b", "b", "a", "c"], groups=np.array([5, 2, 2, 5, 0])
    )
    assert [part.tolist() for part in parts] == [[0, 1, 2, 3], [4]]


@pytest.mark.parametrize(("n", "clients", "beta"), [(2000, 40, 0.5), (2000, 40, 5.0), (200, 10, 1e4), (10, 1, 0.1)])
def test_balanced_dirichlet_draws_until_every_client_has_ten(n, clients, beta):
    for seed in range(3):
        labels = labels_of(n, classes=7)
        parts = partition(labels, clients, "dirichlet-balanced", beta=beta, seed=seed)
        check(parts, n, clients)
        counts = partition_report(parts, labels, NAMES[:7]).counts
        assert counts.sum(axis=1).min() >= 10
        before = np.cumsum(counts, axis=1)  # of class c, who has the mean of the classes before gets none
        full = before[:-1, :-1] >= n / clients  # the last client gets what rounding leaves
        assert not counts[:-1, 1:][full].any()


def test_balanced_dirichlet_is_skewed_by_beta():
    labels = labels_of(5000)
    skews = [
        partition_report(partition(labels, 10, "dirichlet-balanced", beta=b), labels, NAMES).skew
        for b in (0.1, 1.0, 1e4)
    ]
    assert skews[0] > 0.5 > skews[1] > 0.2 > 0.05 > skews[2]


def test_importing_clients_does_not_import_what_only_partitioning_needs():
    code = "import hpcfed.clients, sys; print([m for m in ('datasets', 'flwr_datasets', 'torch') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
