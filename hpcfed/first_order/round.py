"""One round of a dense method on one row: every hosted client reports, the reports become one sum, the weights move.

    report    a client's gradient (FedSGD) or how far it came (FedAvg), or what an attacker sends instead
    exchange  one exact sum over all rows: 8 bytes an element a row; the method itself needs 32 bits up and 32 down

Promise  the same weights after the round, bit for bit, on every row and for any number of rows; between rounds no
         parameter has a gradient or wants one
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..clients import Attack
from ..clients.attack import STUFFED
from ..clock import COLLECTIVE, UPDATE, Clock
from ..config import Recipe, load_method
from ..errors import ConfigError, DivergedError
from ..messages import Outcome
from ..model.head import Forward
from ..noise import fill_
from ..probe.hosted import Hosted
from ..seeds import derive
from ..transport.base import Transport
from ..weights import Weights
from .backward import Backward, differentiable
from .exact_sum import LIMIT, Report, Total


class FirstOrder:
    """The rounds of a dense method on this row.

    An attacker's report x becomes: reverse -x, stuff 100 x, random N(0, attack.scale^2); `hosted` flips labels.
    Raises ConfigError for attack.kind "collude" and for an optimiser that cannot be made.
    """

    def __init__(
        self,
        recipe: Recipe,
        weights: Weights,
        forward: Forward,
        hosted: Hosted,
        attack: Attack,
        transport: Transport,
        clock: Clock,
    ) -> None:
        name, self._settings = recipe.algorithm.name, recipe.attack
        if self._settings.kind == "collude":
            raise ConfigError(
                f'attack.kind="collude": {name} has no such attack, its reports are as large as the model; '
                'use attack.kind="reverse"'
            )
        self._weights, self._hosted, self._transport = weights, hosted, transport
        self._attackers, self._run_seed, self._clock = attack.attackers, recipe.seed, clock
        self._trainer = load_method(name).trainer(recipe, weights, Backward(forward, hosted.task), hosted)

    @property
    def bits(self) -> tuple[int, int]:
        """What the method needs of a client in a round, and to tell it: a float32 an element."""
        return 32 * self._weights.numel, 32 * self._weights.numel

    def round(self, t: int, lr: float, stop: bool) -> Outcome:
        """Round t with step size lr.

        Collective: every row, once a round, also one that hosts nobody. stop: this rank asks to end after the round.
        Traffic: 8 (d + 3) bytes a row, alone none. Memory: 8 bytes an element, beside what the method takes.
        Raises DivergedError on all rows alike if every client abstains; the weights are then what they were.
        """
        sizes = self._trainer.sizes(t)
        total = Total(self._weights, int(sizes.sum()), stop)
        losses, silent = [], list[int]()
        with differentiable(self._weights):
            for slot, members in self._hosted.members(t):
                for k, client in enumerate(members, slot):
                    with self._trainer.report(client, t, lr) as (loss, report):
                        if not total.add(self._sent(client, t, loss, report), int(sizes[k])):
                            silent.append(client)
                    losses.append(loss)
        with self._clock.during(COLLECTIVE):
            collectives = self._transport.sum_in_place(total.vector)
        self._clock.to(UPDATE)
        if total.present == 0:
            raise DivergedError(
                f"round {t}: no client's loss and report are finite and within +-{LIMIT:,.0f} any more; "
                f'lower algorithm.lr={lr:g}, or use model.dtype="float32" if it is 16 bits'
            )
        total.move_(self._trainer.factor(lr))
        finite = [loss for loss in losses if math.isfinite(loss)]
        mean = sum(finite) / len(finite) if finite else math.nan
        sent = total.vector.nbytes if collectives else 0
        return Outcome(mean, total.stops, sent, collectives, total.abstained, silent=silent)

    def _sent(self, client: int, t: int, loss: float, report: Report) -> Report | None:
        """What the client sends, having found `report`; None if it abstains."""
        kind = self._settings.kind if client in self._attackers else "none"
        if kind == "random":
            return self._random(derive(self._run_seed, "random report", client, t))
        if not math.isfinite(loss):
            return None
        if kind in ("reverse", "stuff"):
            return _times(report, -1.0 if kind == "reverse" else float(STUFFED))
        assert kind in ("none", "label-flip"), kind
        return report

    def _random(self, seed: int) -> Report:
        def report(name: str, low: int, high: int) -> Tensor:
            noise = torch.empty(high - low)
            fill_(noise, seed, self._weights.pieces[name].part(low, high), "gaussian")
            return noise.mul_(self._settings.scale).to(self._weights.params[name].device)

        return report


def _times(report: Report, factor: float) -> Report:
    def lie(name: str, low: int, high: int) -> Tensor | None:
        part = report(name, low, high)
        return None if part is None else part * factor

    return lie
