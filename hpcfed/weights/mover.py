"""What moves the weights by a decision: Mover, in training, in resume and in replay; apply_, on a client's walk, too.

Dense methods, which have no decisions, move them by exact sums (first_order/exact_sum.py).

Formula  w <- w - lr / divisor v z(s), one step after the other, each rounded to w's dtype    FeedSign, eq. 3 (H.2, 2)
         w <- optimizer(w, gradient = sum v z(s) / divisor)                                   FeedSign, H.2, 1
         w = w_0 - lr sum_j A_j z(s_j), rounded once                                          FedKSeed
Legend   v: what the tally decided, float32; w_0: the base model
Promise  many updates in one call give the bits of as many calls with one update; tests/unit/weights/test_mover.py
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import IO, Any

import numpy as np
import torch

from ..errors import ConfigError, HpcfedError, first_line
from ..messages import Update
from ..noise import move_
from ..orbit.header import Header
from ..places import temporary
from .optim import make_optimizer
from .weights import Weights, memory


def apply_(weights: Weights, updates: Sequence[Update], distribution: str, rounding: str, once: bool = False) -> None:
    """Move all trained parameters through `updates`, in order, in one pass over the weights; once: round at the end."""
    if not updates:
        return
    seeds = np.concatenate([u.seeds for u in updates])
    coefficients = np.concatenate([u.coefficients for u in updates])
    tensors = [(p.data, weights.pieces[name]) for name, p in weights.params.items()]
    move_(tensors, seeds, coefficients, distribution, rounding, once=once)


class Mover:
    """Moves one copy of the weights, which are those of the base model now.

    optimizer: torch.optim's name and options, or None to move in place.  last: only one call will be made.
    Memory: in place none; with an optimizer one gradient and its state; for updates that start from the base model
    (`Update.whole`) none, but unless `last` the base weights wait in a file without a name in TMPDIR.
    """

    def __init__(
        self,
        weights: Weights,
        distribution: str,
        rounding: str,
        optimizer: tuple[str, dict[str, Any]] | None = None,
        last: bool = False,
    ) -> None:
        self.weights, self.distribution, self.rounding, self._last = weights, distribution, rounding, last
        self._base: IO[bytes] | None = None
        self._optimizer: torch.optim.Optimizer | None = None
        if optimizer:
            self._optimizer = make_optimizer(optimizer[0], list(weights.params.values()), 1.0, optimizer[1])

    def apply(self, updates: Sequence[Update]) -> None:
        """Through `updates`, in order."""
        if self._optimizer:
            for update in updates:
                self._step(self._optimizer, update)
        elif updates and updates[-1].whole:
            self._restart()
            apply_(self.weights, updates[-1:], self.distribution, self.rounding, once=True)
        else:
            apply_(self.weights, updates, self.distribution, self.rounding)

    def _step(self, optimizer: torch.optim.Optimizer, update: Update) -> None:
        ahead = -(update.values / np.float32(update.divisor))  # move_ subtracts
        gradients = {name: torch.zeros_like(p.data) for name, p in self.weights.params.items()}
        tensors = [(g, self.weights.pieces[name]) for name, g in gradients.items()]
        move_(tensors, update.seeds, ahead, self.distribution, self.rounding)
        for name, p in self.weights.params.items():
            p.grad = gradients[name]
        for group in optimizer.param_groups:
            group["lr"] = update.lr
        try:
            optimizer.step()
        except (ArithmeticError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"algorithm.optimizer, its options or algorithm.lr={update.lr:g} fail: {first_line(error)}"
            ) from None
        optimizer.zero_grad(set_to_none=True)

    def _restart(self) -> None:
        """Back to the base model, which the first call finds in place."""
        if self._last:
            return
        try:
            self._to_base()
        except OSError as error:
            raise HpcfedError(
                f"the base weights need {sum(p.nbytes for p in self.weights.params.values()):,} bytes in "
                f"{temporary()}: {error.strerror}; set TMPDIR to a folder with room"
            ) from None

    def _to_base(self) -> None:
        if self._base is None:
            self._base = tempfile.TemporaryFile()  # noqa: SIM115  it lives as long as the mover
            for p in self.weights.params.values():
                self._base.write(memory(p.cpu()))
            self._base.flush()  # a full disk is an error of this round, not of the next
            return
        self._base.seek(0)
        for p in self.weights.params.values():
            here = p if p.device.type == "cpu" else torch.empty_like(p, device="cpu")
            self._base.readinto(memory(here))  # type: ignore[attr-defined]
            if here is not p:
                p.data.copy_(here)


def make_mover(header: Header, weights: Weights, last: bool = False) -> Mover:
    """What moves `weights`, now the base model's, as the header says; last: for one call only."""
    settings, optimizer = header.settings, None
    if "optimizer" in settings:
        optimizer = str(settings["optimizer"]), dict(settings.get("optimizer_options", {}))
    return Mover(weights, header.distribution, header.rounding, optimizer, last)
