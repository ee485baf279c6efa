"""Simulated faults and Byzantine clients: what a client sends instead of what it found (FeedSign, section 4.3).

    slope noise   p <- p (1 + slope_noise N(0, 1))     every client (FeedSign, figure 2)
    reverse       p <- -p                              the worst that a client can do to FeedSign
    random        p <- scale N(0, 1)                   the worst that the paper does to ZO-FedSGD
    collude       p <- -mean of all attackers' p       all of them send the same
    stuff         p <- 100 p, vote <- 100 vote         sends a hundred times what it may
    label-flip    trains on wrong labels and reports honestly

Legend   p: slope that a client reports, float64 [m clients of this row, s directions or local steps], NaN abstains;
         vote: int8 [m, q] in {-1, 0, +1}
Promise  who attacks is a function of (run seed, number of clients), a noise of (run seed, round t, step, client): none
         depends on the rows. Only what is sent changes: a client that walks walked along the slopes it found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..config import AttackConfig
from ..errors import ConfigError
from ..messages import Slopes
from ..seeds import derive, normal, sample
from ..transport.base import Transport

STUFFED = 100  # fits int8, so that the lie reaches the transport's checks as it was told


class Attack:
    """attackers: ids of the Byzantine clients.  flips: those of them that train on wrong labels."""

    attackers: frozenset[int]
    flips: frozenset[int]

    def __init__(
        self, config: AttackConfig, slope_noise: float, clients: int, run_seed: int, transport: Transport
    ) -> None:
        self._kind, self._scale, self._slope_noise, self._run_seed = config.kind, config.scale, slope_noise, run_seed
        self._transport = transport
        self.attackers = _chosen(config, clients, run_seed)
        self.flips = self.attackers if config.kind == "label-flip" else frozenset()

    def on_slopes(self, slopes: Slopes, t: int) -> Slopes:
        """What the clients of this row send in round t instead of `slopes`; the same object if that is what they found.

        NaN stays NaN, so the client abstains, but for attackers that send random or colluding slopes: they always
        send, unless no attacker of the round has a finite slope of that step to collude with.
        Collective where attackers collude, and there alone: all rows, once a round, also a row without attackers or
        without clients.  Traffic: 8 bytes, then 8 (1 + s) bytes for each attacker of the row that hosts most of them.
        """
        if not self.attackers and not self._slope_noise:
            return slopes
        values = slopes.values
        if self._slope_noise and values.size:
            values = values * (1 + self._slope_noise * self._normals("slope-noise", t, slopes.clients, values.shape[1]))
        liars = self._mine(slopes.clients)
        lies = self._lies(values[liars], [k for k in slopes.clients if k in self.attackers], t)
        if lies is not None and len(lies):
            values = values.copy()
            values[liars] = lies
        return slopes if values is slopes.values else replace(slopes, values=values)

    def on_votes(self, votes: np.ndarray, clients: Sequence[int]) -> np.ndarray:
        """int8 [m, q]: what these m clients put into the box instead of `votes`; the same array if that is honest."""
        liars = self._mine(clients) if self._kind == "stuff" else np.zeros(0, bool)
        if not liars.any():
            return votes
        return np.where(liars[:, None], votes * np.int8(STUFFED), votes)

    def _lies(self, slopes: np.ndarray, clients: list[int], t: int) -> np.ndarray | None:
        """What attackers with these ids send, having found slopes [a, s]; None where they report what they found."""
        if self._kind == "reverse":
            return -slopes
        if self._kind == "stuff":
            return STUFFED * slopes
        if self._kind == "random":
            return self._scale * self._normals("random slope", t, clients, slopes.shape[1])
        if self._kind == "collude":  # collective
            return np.broadcast_to(-mean_over_rows(slopes, clients, self._transport), slopes.shape)
        return None

    def _mine(self, clients: Sequence[int]) -> np.ndarray:
        """bool [m]: which of these clients attack."""
        return np.array([client in self.attackers for client in clients], bool)

    def _normals(self, purpose: str, t: int, clients: Sequence[int], steps: int) -> np.ndarray:
        """float64 [m, s]: standard normal, one address a client and step of round t."""
        draws = [[normal(derive(self._run_seed, purpose, t, i, int(k))) for i in range(steps)] for k in clients]
        return np.array(draws).reshape(len(clients), steps)


def _chosen(config: AttackConfig, clients: int, run_seed: int) -> frozenset[int]:
    """Ids of the attackers among `clients` clients."""
    if config.kind == "none":
        return frozenset()
    if isinstance(config.clients, list):
        return frozenset(config.clients)
    many = max(1, round(config.clients * clients)) if isinstance(config.clients, float) else config.clients
    return frozenset(sample(derive(run_seed, "attackers"), clients, many))


def mean_over_rows(slopes: np.ndarray, clients: Sequence[int], transport: Transport) -> np.ndarray:
    """float64 [s]: the finite slopes of each step averaged over the clients of all rows; NaN where there is none.

    Collective, with float64 [a, s] of these a clients, a >= 0 and s the same on every row. The
    sum runs in the order of the ids, not of the rows, so its last bit does not depend on who hosts whom. Where every
    client has directions of its own the numbers are averaged all the same, though their mean is no slope then.
    """
    record = np.dtype([("client", "<i8"), ("slopes", "<f8", (slopes.shape[1],))])
    own = np.zeros(len(clients), record)
    own["client"], own["slopes"] = clients, slopes
    everyone = np.concatenate([np.frombuffer(raw, record) for raw in transport.all_gather(own.tobytes())])
    ordered = everyone["slopes"][np.argsort(everyone["client"])]
    finite = np.isfinite(ordered)
    many = finite.sum(0)
    total = np.where(finite, ordered, 0).sum(0)
    return np.where(many > 0, total / np.maximum(many, 1), np.nan)


def flipped(label: int, classes: int, right: Sequence[int] = ()) -> int:
    """The wrong label, in 0..classes-1, that a label flipper trains on: the next class, the first after the last.

    right: others that are not wrong either, and are passed over; where nothing is wrong the label stays.
    Mirrored labels (classes - 1 - label) would leave the middle one of an odd number of classes right. The next class
    is always wrong, is the same flip for two classes, and takes no two classes to one.
    Raises ConfigError if there is no other class.
    """
    if classes < 2:
        raise ConfigError(
            f'attack.kind="label-flip": the task has {classes} class, so there is no wrong label to train on'
        )
    assert 0 <= label < classes, (label, classes)
    wrong = ((label + k) % classes for k in range(1, classes))
    return next((other for other in wrong if other not in right), label)
