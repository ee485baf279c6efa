"""Two-point probe: a model's logits at w + mu z and at w - mu z, by one forward pass for both sides.

Legend   w: parameters, z: direction, mu: perturbation scale

Dual forward: the batch is stacked twice and every module that owns trained parameters (an Owner) runs its first half
with w + mu z and its second with w - mu z. Both come from one draw of z into scratch as large as the largest owner.
Promise  w is never written; tests/unit/probe/test_dual.py holds this file to it on five architectures.

Which owner a parameter belongs to, and whether modules keep the batch in dimension 0, is found out by trial (trial.py)
before the first pass. A model that does not keep the batch first is run twice instead, once a side: same results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..clock import Clock
from ..model.head import Forward, Inputs, RowsLinear
from ..weights import Weights
from .draws import Draws, Pass
from .graphs import Graphs, Sides
from .owners import NotBatchFirst, Owner, join, swapped
from .packing import Packing

#: What a doubled batch in the wrong place makes a model raise.
UNFIT = (NotBatchFirst, RuntimeError, ValueError, IndexError, TypeError, AttributeError)


class Probe:
    """Probes one model. `forward` maps inputs to logits; `weights` are what directions move.

    graphs: on a CUDA device, replay CUDA graphs of batches that come again (graphs.py); the weights are not sharded.
    clock: where the time of drawing goes.

    owners: of every trained parameter.  mode: "dual" or "two-pass".  late: in dual mode, the batch is doubled only from
    the first perturbed module on.  packs: linear layers leave out padding, where it is known.  All four are found out
    by trial.bind, before the first pass.
    """

    def __init__(
        self,
        model: nn.Module,
        forward: Forward,
        weights: Weights,
        distribution: str,
        graphs: bool = False,
        clock: Clock | None = None,
        draws: Draws | None = None,
    ) -> None:
        self.model, self.forward, self.weights, self.distribution = model, forward, weights, distribution
        self.draws = draws or Draws(distribution, clock or Clock())
        self.owners: list[Owner] = []
        self.mode, self.late, self.packs = "unbound", False, False
        self.graphs: Graphs | None = None
        if graphs:
            self.graphs = Graphs(self._eager, self._one_pass, lambda: self.draws.all_scratch(self.owners))

    @torch.inference_mode()
    def logits(self, inputs: Inputs, seed: int, mu: float, real: Tensor | None = None) -> Sides:
        """Logits [R, ...] with w + mu z and with w - mu z, z = z(seed).

        real: int64 [m], the places among all R * T of the tokens that are no padding; only their logits are then right.
        """
        assert self.mode != "unbound", "trial.bind comes first"
        if self.graphs is not None and self.mode == "dual" and next(iter(inputs.values())).is_cuda:
            return self.graphs.logits(inputs, seed, mu, real)
        return self._eager(inputs, seed, mu, real)

    def take_notes(self) -> list[str]:
        """What has come up since the last call that the user should know."""
        notes = self.graphs.notes if self.graphs else []
        taken = notes[:]
        notes.clear()
        return taken

    def _eager(self, inputs: Inputs, seed: int | Tensor, mu: float, real: Tensor | None) -> Sides:
        if self.mode == "dual":
            try:
                return self._one_pass(inputs, seed, mu, real)
            except torch.OutOfMemoryError:  # a RuntimeError, too
                raise
            except UNFIT:  # a batch unlike the trial's, e.g. one whose mask the model leaves out
                pass
        return self.two_passes(inputs, Pass(seed, mu, packing=self._packing(inputs, real)))

    def _one_pass(self, inputs: Inputs, seed: int | Tensor, mu: float, real: Tensor | None) -> Sides:
        """The dual forward or an error; inputs, seed and `real` stay where they are, so that it can be captured."""
        return self.dual(inputs, Pass(seed, mu, packing=self._packing(inputs, real)))

    def _packing(self, inputs: Inputs, real: Tensor | None) -> Packing | None:
        return Packing.of(real, inputs["attention_mask"].shape) if self.packs and real is not None else None

    def dual(self, inputs: Inputs, p: Pass) -> Sides:
        """Both sides by one forward pass, or one of UNFIT if the model does not take it."""
        p.side, p.rows = 0, next(iter(inputs.values())).shape[0]
        with self.installed(p):
            both = self.forward(inputs if self.late else {k: torch.cat([v, v]) for k, v in inputs.items()})
        if both.shape[0] != 2 * p.rows:
            raise NotBatchFirst
        return both[: p.rows], both[p.rows :]

    def two_passes(self, inputs: Inputs, p: Pass) -> Sides:
        """Both sides, one after the other."""
        with self.installed(p):
            p.side = 1
            plus = self.forward(inputs)
            p.side = -1
            return plus, self.forward(inputs)

    @contextmanager
    def installed(self, p: Pass) -> Iterator[None]:
        """Inside, the owners' modules take their turns in pass p; each gets the forward that it had back."""
        try:
            for owner in self.owners:
                owner.before = {k: v for k, v in owner.module.__dict__.items() if k == "forward"}
                owner.module.forward = self._turn(owner, owner.module.forward, p)
            yield
        finally:
            for owner in self.owners:
                owner.module.__dict__.pop("forward", None)
                owner.module.__dict__.update(owner.before)

    # --- an owner's turn: draw, then run each side with its own weights ----------------------------------------------

    def _turn(self, owner: Owner, original: Callable[..., Any], p: Pass) -> Callable[..., Any]:
        in_parts = {nn.Linear: self._linear, nn.Embedding: self._embedding, RowsLinear: self._rows_linear}

        def run(*args: Any, **kwargs: Any) -> Any:
            calls: list[Any] = [(args, kwargs)] if p.side else _halves(owner, args, kwargs, p)
            if owner.in_parts:
                inputs = [a[0] if a else next(iter(k.values())) for a, k in calls]
                return in_parts.get(type(owner.module), self._shard_linear)(owner, inputs, p)
            sides = self.draws.whole(owner, p)
            outputs, before = [], p.side
            try:
                for side, weights, (a, k) in zip((before,) if before else (1, -1), sides, calls, strict=True):
                    p.side = side  # children that own parameters follow this side
                    with swapped(owner.sites, weights):
                        outputs.append(original(*a, **k))
            finally:
                p.side = before
            return join(outputs)

        return run

    def _shard_linear(self, owner: Owner, xs: list[Tensor], p: Pass) -> Tensor:
        """A linear layer of which this rank has some rows, or some columns: then all add up their products.

        One sum over the row for both sides. The bias, which all ranks have, is added after it, once.
        """
        module = owner.module
        if module.in_row is None:
            return self._linear(owner, xs, p)
        out = self._linear(owner, xs, p, with_bias=False)
        module.in_row(out)
        if module.bias is not None:
            site = next((site for site in owner.sites if site.attribute == "bias"), None)
            biases = self.draws.block(site, module.bias, 0, len(module.bias), p)
            for part, bias in zip(out.chunk(len(biases)), biases, strict=True):
                part += bias
        return out

    def _linear(self, owner: Owner, xs: list[Tensor], p: Pass, with_bias: bool = True) -> Tensor:
        """nn.Linear in blocks of output features, so that scratch is bounded however large the layer.

        xs: the input of each side.  The block size is fixed, so the bits do not depend on threads or rows.
        """
        weight, bias = owner.module.weight, owner.module.bias if with_bias else None
        sites = {site.attribute: site for site in owner.sites}
        n, width = weight.shape
        rows = [x.reshape(-1, width) for x in xs]
        packing = p.packing if p.packing and p.packing.fits(xs[0]) else None
        if packing:
            rows = [packing.packed(x) for x in rows]
        out = xs[0].new_empty(sum(len(x) for x in rows), n)
        parts = out.split([len(x) for x in rows])
        step = self.draws.step(weight)
        for low in range(0, n, step):
            high = min(n, low + step)
            weights = self.draws.block(sites.get("weight"), weight, low, high, p)
            biases = self.draws.block(sites.get("bias") if with_bias else None, bias, low, high, p)
            for x, into, w, b in zip(rows, parts, weights, biases, strict=True):
                if b is None:
                    torch.mm(x, w.t(), out=into[:, low:high])
                else:
                    torch.addmm(b, x, w.t(), out=into[:, low:high])
        if packing:
            out = packing.unpacked(out)
        return out.view(-1, *xs[0].shape[1:-1], n) if xs[0].dim() > 1 else out.view(-1)

    def _embedding(self, owner: Owner, xs: list[Tensor], p: Pass) -> Tensor:
        """Only the rows that the batch looks up are drawn."""
        rows, at = self.draws.looked_up(xs, owner.module.weight)
        tables = self.draws.rows(owner.sites[0], rows, p)
        return torch.cat([F.embedding(i, table) for i, table in zip(at.chunk(len(xs)), tables, strict=True)])

    def _rows_linear(self, owner: Owner, xs: list[Tensor], p: Pass) -> Tensor:
        """Only the rows that are scored are drawn."""
        module = owner.module
        both: dict[str, Any] = {site.attribute: self.draws.rows(site, module.rows, p) for site in owner.sites}
        for attribute, fixed in (("weight", module.weight), ("bias", module.bias)):
            both.setdefault(attribute, [None if fixed is None else fixed[module.rows]] * len(xs))
        return torch.cat([F.linear(x, w, b) for x, w, b in zip(xs, both["weight"], both["bias"], strict=True)])


def _halves(owner: Owner, args: tuple[Any, ...], kwargs: dict[str, Any], p: Pass) -> list[Any]:
    """The arguments of each side, of a call with both."""
    first: tuple[Any, Any] = (list(args), dict(kwargs))
    second: tuple[Any, Any] = (list(args), dict(kwargs))
    for key in owner.scales:
        at = 0 if isinstance(key, int) else 1
        first[at][key], second[at][key] = _split(owner, key, first[at][key], p)
    return [first, second]


def _split(owner: Owner, key: int | str, x: Any, p: Pass) -> tuple[Tensor, Tensor]:
    if not isinstance(x, Tensor):
        raise NotBatchFirst  # it was a tensor in the trial
    if p.trial:
        n = owner.scales[key] * p.rows
        if x.shape[0] == n:
            owner.single.add(key)
        elif x.shape[0] != 2 * n:
            raise NotBatchFirst
    if key in owner.single:
        return x, x  # not doubled yet: both sides see the same activations
    middle = x.shape[0] // 2
    return x[:middle], x[middle:]
