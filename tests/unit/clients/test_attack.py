"""Attackers and slope noise: each kind against a few lines of its own; the split of clients over rows is no matter."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcfed.clients import Attack, flipped
from hpcfed.config import AttackConfig
from hpcfed.errors import ConfigError, TransportError
from hpcfed.messages import Ballots, Slopes
from hpcfed.seeds import derive, normal, sample
from hpcfed.transport.base import Transport
from hpcfed.transport.solo import SoloTransport
from hpcfed.transport.wire import check_sum, count_bits, encode_bits, encode_sum

KINDS = ("none", "reverse", "random", "label-flip", "stuff", "collude")
SEED = 11


class Never(SoloTransport):
    """Nothing is sent."""

    def all_gather(self, data: bytes) -> list[bytes]:
        raise AssertionError("nothing to gather")


class Box(SoloTransport):
    """One of several rows that are threads and meet here."""

    def __init__(self, row: int, boxes: list[bytes], barrier: threading.Barrier) -> None:
        super().__init__()
        self._mine, self._boxes, self._barrier = row, boxes, barrier

    def all_gather(self, data: bytes) -> list[bytes]:
        self._boxes[self._mine] = data
        self._barrier.wait()
        return list(self._boxes)


def attack(
    kind: str, clients: object = 2, noise: float = 0.0, count: int = 6, seed: int = SEED,
    transport: Transport | None = None, **more,
) -> Attack:  # fmt: skip
    """On one row, where only colluders may send anything, unless a transport is given."""
    alone = SoloTransport() if kind == "collude" else Never()
    return Attack(AttackConfig(kind=kind, clients=clients, **more), noise, count, seed, transport or alone)


def found(clients: Sequence[int], steps: int = 3, seed: int = 0) -> Slopes:
    """Slopes that depend on the client alone; client 4 has no finite one of step 1."""
    values = np.array([[normal(derive(seed, "test", k, i)) for i in range(steps)] for k in clients])
    values = values.reshape(len(clients), steps)
    if 4 in clients and steps > 1:
        values[list(clients).index(4), 1] = np.nan
    return Slopes(list(clients), values, np.zeros(len(clients)))


def on_rows(make: Callable[..., Attack], rows: Sequence[Sequence[int]], t: int, steps: int = 3) -> np.ndarray:
    """on_slopes on all rows at once, as threads that meet in all_gather; what all clients sent, in client order."""
    sent: list[Slopes | None] = [None] * len(rows)
    boxes: list[bytes] = [b""] * len(rows)
    barrier = threading.Barrier(len(rows), timeout=20)

    def row(r: int) -> None:
        sent[r] = make(transport=Box(r, boxes, barrier)).on_slopes(found(rows[r], steps), t)

    threads = [threading.Thread(target=row, args=(r,)) for r in range(len(rows))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    clients = np.concatenate([np.array(s.clients, int) for s in sent if s])
    return np.concatenate([s.values for s in sent if s])[np.argsort(clients)]


def test_who_attacks_is_a_function_of_seed_and_count():
    assert attack("reverse", [5, 1]).attackers == {1, 5}
    assert (
        attack("reverse", 2).attackers == set(sample(derive(SEED, "attackers"), 6, 2)) == attack("stuff", 2).attackers
    )
    assert len(attack("reverse", 0.34).attackers) == 2 and len(attack("reverse", 0.01).attackers) == 1
    assert attack("reverse", 1.0).attackers == set(range(6)) and len(attack("reverse", 1).attackers) == 1
    assert attack("none", 3).attackers == frozenset() == attack("none", [1]).flips
    assert len({attack("reverse", 2, seed=seed).attackers for seed in range(50)}) > 10
    many = attack("reverse", 0.2, count=10_000).attackers
    assert len(many) == 2000 and min(many) >= 0 and max(many) < 10_000


def test_only_label_flippers_train_on_wrong_labels():
    for kind in KINDS:
        a = attack(kind)
        assert a.flips == (a.attackers if kind == "label-flip" else frozenset())


@pytest.mark.parametrize("classes", range(2, 8))
def test_flipped_labels_are_wrong_and_no_two_are_the_same(classes):
    labels = [flipped(label, classes) for label in range(classes)]
    assert sorted(labels) == list(range(classes)) and all(a != b for a, b in zip(labels, range(classes), strict=True))
    with pytest.raises(ConfigError, match=r"label-flip.*1 class"):
        flipped(0, 1)


def oracle(kind: str, values: np.ndarray, liars: list[int], t: int, scale: float) -> np.ndarray:
    """What six clients with slopes `values` send."""
    sent = values.copy()
    for k in liars:
        for i in range(values.shape[1]):
            others = [values[j, i] for j in liars if np.isfinite(values[j, i])]
            sent[k, i] = {
                "reverse": -values[k, i],
                "random": scale * normal(derive(SEED, "random slope", t, i, k)),
                "stuff": 100 * values[k, i],
                "collude": -np.mean(others) if others else np.nan,
            }.get(kind, values[k, i])
    return sent


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("liars", [[1, 4], [4], [0, 1, 2, 3, 4, 5]])
def test_each_kind_by_its_oracle(kind, liars):
    honest = found(range(6))
    sent = attack(kind, liars, scale=3.0).on_slopes(honest, 9)
    np.testing.assert_allclose(sent.values, oracle(kind, honest.values, liars, 9, 3.0), rtol=1e-14)
    assert sent.clients == honest.clients and sent.losses is honest.losses
    assert (sent is honest) == (kind in ("none", "label-flip"))
    np.testing.assert_array_equal(honest.values, found(range(6)).values)  # what was found is left alone


def test_who_abstains():
    """Client 4 has no finite slope of step 1: who reverses that abstains, who invents a slope sends it."""
    values = {kind: attack(kind, [1, 4]).on_slopes(found(range(6)), 0).values[4, 1] for kind in KINDS}
    assert {kind for kind in KINDS if np.isnan(values[kind])} == {"none", "reverse", "label-flip", "stuff"}
    assert np.isnan(attack("collude", [4]).on_slopes(found(range(6)), 0).values[4, 1])  # nobody to agree with


@pytest.mark.parametrize("kind", KINDS)
def test_rows_without_clients_or_attackers(kind):
    for clients in ([], [0, 2]):
        honest = found(clients)
        assert attack(kind, [1, 4]).on_slopes(honest, 0) is honest
        noisy = attack(kind, [1, 4], noise=1.0).on_slopes(honest, 0)
        assert noisy.values.shape == (len(clients), 3)


@settings(max_examples=25, deadline=None)
@given(kind=st.sampled_from(KINDS), noise=st.sampled_from([0.0, 1.0]), owners=st.lists(st.integers(0, 2), min_size=6))
def test_the_split_over_rows_changes_nothing(kind, noise, owners):
    """One row with all clients, or three with any share each, some with nobody: equal to the last bit."""
    rows = [[k for k in range(6) if owners[k] == row] for row in range(3)]
    a = partial(attack, kind, 0.5, noise)
    for steps in (1, 3):
        np.testing.assert_array_equal(on_rows(a, rows, 5, steps), on_rows(a, [range(6)], 5, steps))


def test_many_colluders_are_summed_in_client_order():
    """Forty floats of all sizes: their sum has another last bit in about any other order."""
    rows = [[k for k in range(40) if k * 7 % 3 == row] for row in (2, 0, 1)]
    a = partial(attack, "collude", 1.0, count=40)
    np.testing.assert_array_equal(on_rows(a, rows, 0, 8), on_rows(a, [range(40)], 0, 8))


def test_colluders_of_all_rows_send_the_same():
    sent = on_rows(partial(attack, "collude", [0, 3, 5]), [[0, 1], [], [2, 3], [4, 5]], 2)
    honest = found(range(6)).values
    assert (sent[0] == sent[3]).all() and (sent[0] == sent[5]).all()
    np.testing.assert_allclose(sent[0], -honest[[0, 3, 5]].mean(0), rtol=1e-14)
    np.testing.assert_array_equal(sent[[1, 2, 4]], honest[[1, 2, 4]])


def test_slope_noise_is_multiplicative_with_mean_one():
    n, noise = 6000, 0.7
    ones = Slopes(range(n), np.ones((n, 2)), np.zeros(n))
    a = attack("none", noise=noise, count=n)
    factors = a.on_slopes(ones, 3).values
    assert factors[8, 1] == 1 + noise * normal(derive(SEED, "slope-noise", 3, 1, 8))
    assert abs(factors.mean() - 1) < 4 * noise / np.sqrt(2 * n)
    assert abs(factors.std() - noise) < 4 * noise / np.sqrt(4 * n)
    assert abs(np.corrcoef(factors.T)[0, 1]) < 4 / np.sqrt(n)
    assert not (a.on_slopes(ones, 4).values == factors).any()
    doubled = a.on_slopes(Slopes(range(n), np.full((n, 2), 2.0), np.zeros(n)), 3).values
    np.testing.assert_array_equal(doubled, 2 * factors)


def test_attackers_see_the_noise_too():
    noisy = attack("none", noise=1.0).on_slopes(found(range(6)), 7).values
    sent = attack("reverse", [2], noise=1.0).on_slopes(found(range(6)), 7).values
    np.testing.assert_array_equal(sent[2], -noisy[2])
    np.testing.assert_array_equal(np.delete(sent, 2, 0), np.delete(noisy, 2, 0))


VOTES = np.array([[1, -1], [-1, 0], [1, 1]], np.int8)


def test_only_stuffers_change_their_votes():
    for kind in KINDS:
        sent = attack(kind, [0, 4]).on_votes(VOTES, [0, 2, 4])
        assert sent.dtype == np.int8
        if kind == "stuff":
            assert sent.tolist() == [[100, -100], [-1, 0], [100, 100]]
        else:
            assert sent is VOTES
    a = attack("stuff", [0, 4])
    assert a.on_votes(VOTES, [1, 2, 3]) is VOTES and VOTES.max() == 1
    assert a.on_votes(np.empty((0, 2), np.int8), []).shape == (0, 2)


def test_sums_catch_a_stuffed_box_and_bits_make_it_impossible():
    stuffed = attack("stuff", [2]).on_votes(VOTES, [0, 1, 2])
    assert "stuffed the ballot box" in str(check_sum(encode_sum(stuffed, False, 3), 3, 1))
    for votes in (VOTES, stuffed):
        sums, cast, _ = count_bits(encode_bits(votes, False, 3)[None], [3], 2)
        assert sums.tolist() == [1, 0] and cast.tolist() == [3, 2]
    transport = SoloTransport()
    with pytest.raises(TransportError, match="stuffed the ballot box"):
        transport.tally(Ballots([0, 1, 2], stuffed), 3, [3])
