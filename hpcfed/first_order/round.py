"""One round of a dense method on one row: every hosted client reports, the reports become one sum, the weights move.

    report    a client's gradient (FedSGD) or how far it came (FedAvg), or what an attacker sends instead
    exchange  one exact sum over all rows: 8 bytes an element a row; the method itself needs 32 bits up and 32 down

Promise  the same weights after the round, bit for bit, on every row and for any number of rows; between rounds no
         parameter has a gradient or wants one
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..clients import Pool
from ..clients.attack import STUFFED
from ..clock import COLLECTIVE, UPDATE
from ..config import Recipe
from ..errors import ConfigError, DivergedError
from ..messages import Outcome
from ..noise import fill_
from ..probe.slopes import Local
from ..seeds import derive
from ..transport.base import Transport
from .backward import Backward, differentiable
from .exact_sum import LIMIT, Report, Total
from .fedavg import FedAvg
from .fedsgd import FedSGD

if TYPE_CHECKING:
    from ..train.problem import Problem

METHODS: dict[str, type[FedSGD] | type[FedAvg]] = {"fedsgd": FedSGD, "fedavg": FedAvg}


class FirstOrder:
    """mesh_groups: numbers of the groups this row hosts.  attackers: ids of clients that do what attack.kind says.

    An attacker's report x becomes: reverse -x, stuff 100 x, random N(0, attack.scale^2); label-flip is done by `local`.
    Raises ConfigError for attack.kind "collude" and for an optimiser that cannot be made.
    """

    def __init__(
        self,
        recipe: Recipe,
        problem: Problem,
        pool: Pool,
        local: Local,
        transport: Transport,
        mesh_groups: range,
        attackers: frozenset[int] = frozenset(),
    ) -> None:
        name, self._attack = recipe.algorithm.name, recipe.attack
        if self._attack.kind == "collude":
            raise ConfigError(
                f'attack.kind="collude": {name} has no such attack, its reports are as large as the model; '
                'use attack.kind="reverse"'
            )
        self._weights, self._pool, self._transport, self._mine = problem.weights, pool, transport, mesh_groups
        self._attackers, self._run_seed, self._clock = attackers, recipe.seed, local.probe.clock
        backward = Backward(problem.forward, problem.task)
        self._method = METHODS[name](recipe, problem.weights, backward, pool, local)

    @property
    def uplink_bits(self) -> int:
        """What the method needs of a client in a round: a float32 an element."""
        return 32 * self._weights.numel

    @property
    def downlink_bits(self) -> int:
        """What the method needs to tell a client in a round."""
        return 32 * self._weights.numel

    def round(self, t: int, lr: float, stop: bool) -> Outcome:
        """Round t with step size lr.

        Collective: every row, once a round, also one that hosts nobody. stop: this rank asks to end after the round.
        Traffic: 8 (d + 3) bytes a row, alone none. Memory: 8 bytes an element, beside what the method takes.
        Raises DivergedError on all rows alike if every client abstains; the weights are then what they were.
        """
        sizes = self._method.sizes(t)
        total = Total(self._weights, int(sizes.sum()), stop)
        losses = []
        with differentiable(self._weights):
            slot = 0
            for group, members in self._pool.groups(t).items():
                for k, client in enumerate(members if group in self._mine else (), slot):
                    with self._method.report(client, t, lr) as (loss, report):
                        total.add(self._sent(client, t, loss, report), int(sizes[k]))
                    losses.append(loss)
                slot += len(members)
        with self._clock.during(COLLECTIVE):
            collectives = self._transport.sum_in_place(total.vector)
        self._clock.to(UPDATE)
        if total.present == 0:
            raise self._transport.everywhere(
                DivergedError(
                    f"round {t}: no client's loss and report are finite and within +-{LIMIT:,.0f} any more; "
                    f'lower algorithm.lr={lr:g}, or use model.dtype="float32" if it is 16 bits'
                )
            )
        total.move_(self._method.factor(lr))
        finite = [loss for loss in losses if math.isfinite(loss)]
        mean = sum(finite) / len(finite) if finite else math.nan
        sent = total.vector.nbytes if collectives else 0
        return Outcome(mean, total.stops, sent, collectives, total.abstained)

    def _sent(self, client: int, t: int, loss: float, report: Report) -> Report | None:
        """What the client sends, having found `report`; None if it abstains."""
        kind = self._attack.kind if client in self._attackers else "none"
        if kind == "random":
            return self._random(derive(self._run_seed, "random report", client, t))
        if not math.isfinite(loss):
            return None
        if kind in ("reverse", "stuff"):
            return _times(report, -1.0 if kind == "reverse" else float(STUFFED))
        return report

    def _random(self, seed: int) -> Report:
        def report(name: str, low: int, high: int) -> Tensor:
            noise = torch.empty(high - low)
            fill_(noise, seed, self._weights.pieces[name].part(low, high), "gaussian")
            return noise.mul_(self._attack.scale).to(self._weights.params[name].device)

        return report


def _times(report: Report, factor: float) -> Report:
    def lie(name: str, low: int, high: int) -> Tensor | None:
        part = report(name, low, high)
        return None if part is None else part * factor

    return lie
