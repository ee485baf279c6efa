"""Two-point probe: a model's logits at w + mu z and at w - mu z, by one forward pass for both sides.

Legend   w: parameters, z: direction, mu: perturbation scale

Dual forward: the batch is stacked twice and every module that owns trained parameters (an Owner) runs its first half
with w + mu z and its second with w - mu z. Both come from one draw of z into scratch as large as the largest owner.
Promise  w is never written; tests/unit/test_probe.py holds this file to it on five architectures.

Which owner a parameter belongs to, and whether modules keep the batch in dimension 0, is found out by trial on the
first batch (`bind`). A model that does not keep the batch first is run twice instead, once a side: same results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..clock import DIRECTIONS, Clock
from ..errors import DivergedError
from ..model.head import Forward, Inputs, RowsLinear
from ..noise import perturb, perturb_rows
from ..noise.layout import Piece
from ..weights.weights import Weights
from .graphs import Graphs
from .owners import (
    Calls,
    NotBatchFirst,
    Owner,
    Site,
    enclosing,
    find_scales,
    find_sites,
    join,
    make_owners,
    recorded,
    swapped,
)
from .packing import Packing

#: Elements of a linear layer's weight that are perturbed and multiplied at a time: which bounds scratch. Smaller blocks
#: cost more products (docs/PERFORMANCE.md); the GPU's is chosen on paper and not measured.
BLOCK = {"cpu": 2**22, "cuda": 2**26}
UNFIT = (
    NotBatchFirst,
    RuntimeError,
    ValueError,
    IndexError,
    TypeError,
    AttributeError,
)  # a doubled batch in the wrong place
TRIAL_MU = 0.02  # large, so that a half that runs on the wrong side shows


class Probe:
    """Probes one model. `forward` maps inputs to logits; `weights` are what directions move.

    graphs: on a CUDA device, replay CUDA graphs of batches that come again (graphs.py); the weights are not sharded.
    """

    def __init__(
        self, model: nn.Module, forward: Forward, weights: Weights, distribution: str, graphs: bool = False
    ) -> None:
        self.model, self.forward, self.weights, self.distribution = model, forward, weights, distribution
        self.clock = Clock()  # of this row's rounds
        self.mode = "unbound"  # then, after a trial, "dual" or "two-pass"
        self.late = False  # dual, and the batch is doubled only from the first perturbed module on
        self._owners: list[Owner] = []
        self._blocks: dict[tuple[str, torch.dtype], list[Tensor]] = {}  # scratch of linear layers
        self._seed: int | Tensor = 0  # int64 [1] on the device while a graph is captured
        self._mu, self._rows = 0.0, 0
        self._side = 0  # 0: both halves are in the batch; +1, -1: all of the batch runs on that side
        self.packs = False  # linear layers leave out padding, where it is known
        self._packing: Packing | None = None
        self.graphs = Graphs(self._eager, self._one_pass, self._all_scratch) if graphs else None

    @torch.inference_mode()
    def logits(self, inputs: Inputs, seed: int, mu: float, real: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits [R, ...] with w + mu z and with w - mu z, z = z(seed).

        real: int64 [m], the places among all R * T of the tokens that are no padding; only their logits are then right.
        """
        if self.mode == "unbound":
            self.bind(inputs)
        if self.graphs is not None and self.mode == "dual" and next(iter(inputs.values())).is_cuda:
            return self.graphs.logits(inputs, seed, mu, real)
        return self._eager(inputs, seed, mu, real)

    def _eager(self, inputs: Inputs, seed: int | Tensor, mu: float, real: Tensor | None) -> tuple[Tensor, Tensor]:
        self._pack(inputs, real)
        if self.mode == "dual":
            try:
                return self._dual(inputs, seed, mu)
            except torch.OutOfMemoryError:  # a RuntimeError, too
                raise
            except UNFIT:  # a batch unlike the trial's, e.g. one whose mask the model leaves out
                pass
        return self._two_passes(inputs, seed, mu)

    def _one_pass(self, inputs: Inputs, seed: int | Tensor, mu: float, real: Tensor | None) -> tuple[Tensor, Tensor]:
        """The dual forward or an error; inputs, seed and `real` stay where they are, so that it can be captured."""
        self._pack(inputs, real)
        return self._dual(inputs, seed, mu)

    def _pack(self, inputs: Inputs, real: Tensor | None) -> None:
        self._packing = Packing.of(real, inputs["attention_mask"].shape) if self.packs and real is not None else None

    def _dual(self, inputs: Inputs, seed: int | Tensor, mu: float) -> tuple[Tensor, Tensor]:
        self._seed, self._mu, self._side, self._rows = seed, mu, 0, next(iter(inputs.values())).shape[0]
        with self._installed():
            both = self.forward(inputs if self.late else {k: torch.cat([v, v]) for k, v in inputs.items()})
        if both.shape[0] != 2 * self._rows:
            raise NotBatchFirst
        return both[: self._rows], both[self._rows :]

    def _two_passes(self, inputs: Inputs, seed: int | Tensor, mu: float) -> tuple[Tensor, Tensor]:
        self._seed, self._mu = seed, mu
        with self._installed():
            self._side = 1
            plus = self.forward(inputs)
            self._side = -1
            return plus, self.forward(inputs)

    def _rest(self) -> None:
        """Take the owners' turns away; a module that had a forward of its own gets it back."""
        for owner in self._owners:
            owner.module.__dict__.pop("forward", None)
            owner.module.__dict__.update(owner.before)

    # --- an owner's turn: draw, then run each side with its own weights ----------------------------------------------

    @contextmanager
    def _installed(self) -> Iterator[None]:
        try:
            for owner in self._owners:
                owner.before = {k: v for k, v in owner.module.__dict__.items() if k == "forward"}
                owner.module.forward = self._turn(owner, owner.module.forward)
            yield
        finally:
            self._rest()

    def _turn(self, owner: Owner, original: Callable[..., Any]) -> Callable[..., Any]:
        in_parts = {nn.Linear: self._linear, nn.Embedding: self._embedding, RowsLinear: self._rows_linear}

        def run(*args: Any, **kwargs: Any) -> Any:
            calls: list[Any] = [(args, kwargs)] if self._side else self._halves(owner, args, kwargs)
            if owner.in_parts:
                inputs = [a[0] if a else next(iter(k.values())) for a, k in calls]
                return in_parts.get(type(owner.module), self._shard_linear)(owner, inputs)
            sides = self._drawn(owner)
            outputs, before = [], self._side
            try:
                for side, weights, (a, k) in zip((before,) if before else (1, -1), sides, calls, strict=True):
                    self._side = side  # children that own parameters follow this side
                    with swapped(owner.sites, weights):
                        outputs.append(original(*a, **k))
            finally:
                self._side = before
            return join(outputs)

        return run

    def _perturbed(
        self, w: Tensor, piece: Piece, plus: Tensor, minus: Tensor, rows: Tensor | None = None
    ) -> list[Tensor]:
        """w + mu z and w - mu z, of all or of some rows; or, inside one side, only that side's."""
        before = self.clock.to(DIRECTIONS)
        draw = partial(perturb, w) if rows is None else partial(perturb_rows, w, rows)
        if self._side == 0:
            draw(plus, minus, self._seed, self._mu, piece, self.distribution)
        else:  # w + (-mu) z has the bits of w - mu z
            draw(plus, None, self._seed, self._side * self._mu, piece, self.distribution)
        self.clock.to(before)
        return [plus] if self._side else [plus, minus]

    def _drawn(self, owner: Owner) -> list[list[Tensor]]:
        """Per side, the perturbed weights of the owner's sites."""
        each = [
            self._perturbed(site.param, site.piece, plus, minus)
            for site, plus, minus in zip(owner.sites, owner.plus, owner.minus, strict=True)
        ]
        return [list(side) for side in zip(*each, strict=True)]

    def _split(self, owner: Owner, key: int | str, x: Any) -> tuple[Tensor, Tensor]:
        if not isinstance(x, Tensor):
            raise NotBatchFirst  # it was a tensor in the trial
        if self.mode == "trial":
            n = owner.scales[key] * self._rows
            if x.shape[0] == n:
                owner.single.add(key)
            elif x.shape[0] != 2 * n:
                raise NotBatchFirst
        if key in owner.single:
            return x, x  # not doubled yet: both sides see the same activations
        middle = x.shape[0] // 2
        return x[:middle], x[middle:]

    def _halves(self, owner: Owner, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        first: tuple[Any, Any] = (list(args), dict(kwargs))
        second: tuple[Any, Any] = (list(args), dict(kwargs))
        for key in owner.scales:
            at = 0 if isinstance(key, int) else 1
            first[at][key], second[at][key] = self._split(owner, key, first[at][key])
        return [first, second]

    def _shard_linear(self, owner: Owner, xs: list[Tensor]) -> Tensor:
        """A linear layer of which this rank has some rows, or some columns: then all add up their products.

        One sum over the row for both sides. The bias, which all ranks have, is added after it, once.
        """
        module = owner.module
        if module.in_row is None:
            return self._linear(owner, xs)
        out = self._linear(owner, xs, with_bias=False)
        module.in_row(out)
        if module.bias is not None:
            site = next((site for site in owner.sites if site.attribute == "bias"), None)
            biases = self._block(site, module.bias, 0, len(module.bias))
            for part, bias in zip(out.chunk(len(biases)), biases, strict=True):
                part += bias
        return out

    def _linear(self, owner: Owner, xs: list[Tensor], with_bias: bool = True) -> Tensor:
        """nn.Linear in blocks of output features, so that scratch is bounded however large the layer.

        xs: the input of each side.  The block size is fixed, so the bits do not depend on threads or rows.
        """
        weight, bias = owner.module.weight, owner.module.bias if with_bias else None
        sites = {site.attribute: site for site in owner.sites}
        n, width = weight.shape
        rows = [x.reshape(-1, width) for x in xs]
        packing = self._packing if self._packing and self._packing.fits(xs[0]) else None
        if packing:
            rows = [packing.packed(x) for x in rows]
        out = xs[0].new_empty(sum(len(x) for x in rows), n)
        parts = out.split([len(x) for x in rows])
        step = self._step(n, width, weight.device.type)
        for low in range(0, n, step):
            high = min(n, low + step)
            weights = self._block(sites.get("weight"), weight, low, high)
            biases = self._block(sites.get("bias") if with_bias else None, bias, low, high)
            for x, into, w, b in zip(rows, parts, weights, biases, strict=True):
                if b is None:
                    torch.mm(x, w.t(), out=into[:, low:high])
                else:
                    torch.addmm(b, x, w.t(), out=into[:, low:high])
        if packing:
            out = packing.unpacked(out)
        return out.view(-1, *xs[0].shape[1:-1], n) if xs[0].dim() > 1 else out.view(-1)

    def _step(self, n: int, width: int, device: str) -> int:
        """Output features in a block of a weight [n, width]; all blocks are of equal size."""
        return -(-n // -(-n * width // BLOCK[device]))

    def _block(self, site: Site | None, fixed: Tensor | None, low: int, high: int) -> list[Any]:
        """Per side, rows low to high of a linear layer's weight or bias, perturbed if it is trained."""
        if site is None:
            return [None if fixed is None else fixed[low:high]] * (1 if self._side else 2)
        w = site.param[low:high]
        size, width = w.numel(), site.param[0].numel()
        plus, minus = (buffer[:size].view(w.shape) for buffer in self._scratch(site, size))
        return self._perturbed(w, site.piece.part(low * width, high * width), plus, minus)

    def _scratch(self, site: Site, size: int) -> list[Tensor]:
        key = site.attribute, site.param.dtype
        if key not in self._blocks or self._blocks[key][0].numel() < size:
            self._blocks[key] = [torch.empty(size, dtype=site.param.dtype, device=site.param.device) for _ in range(2)]
        return self._blocks[key]

    def _all_scratch(self) -> list[Tensor]:
        of_owners = [buffer for owner in self._owners for buffer in (*owner.plus, *owner.minus)]
        return of_owners + [buffer for pair in self._blocks.values() for buffer in pair]

    def _embedding(self, owner: Owner, xs: list[Tensor]) -> Tensor:
        """Only the rows that the batch looks up are drawn."""
        ids = torch.cat(xs)
        if ids.is_cuda:  # a row a token, for torch.unique would wait until the device has counted them
            rows, at = ids.flatten(), torch.arange(ids.numel(), device=ids.device).view(ids.shape)
        else:
            rows, at = torch.unique(ids, return_inverse=True)
        tables = self._drawn_rows(owner.sites[0], rows)
        return torch.cat([F.embedding(i, table) for i, table in zip(at.chunk(len(xs)), tables, strict=True)])

    def _rows_linear(self, owner: Owner, xs: list[Tensor]) -> Tensor:
        """Only the rows that are scored are drawn."""
        module = owner.module
        both: dict[str, Any] = {site.attribute: self._drawn_rows(site, module.rows) for site in owner.sites}
        for attribute, fixed in (("weight", module.weight), ("bias", module.bias)):
            both.setdefault(attribute, [None if fixed is None else fixed[module.rows]] * len(xs))
        return torch.cat([F.linear(x, w, b) for x, w, b in zip(xs, both["weight"], both["bias"], strict=True)])

    def _drawn_rows(self, site: Site, rows: Tensor) -> list[Tensor]:
        plus, minus = (site.param.new_empty(len(rows), *site.param.shape[1:]) for _ in range(2))
        return self._perturbed(site.param, site.piece, plus, minus, rows)

    # --- trial on the first batch: who owns what, and is the batch first everywhere ----------------------------------

    @torch.inference_mode()
    def bind(self, inputs: Inputs, seed: int = 0) -> None:
        """Find out by trial on a batch how the model is to be probed; every row must bind on the same one.

        Raises DivergedError if the model's logits are not finite there, since nothing can be found out then.
        """
        rows = next(iter(inputs.values())).shape[0]
        few = [{k: v[torch.arange(n) % rows] for k, v in inputs.items()} for n in (2, 3)]
        calls = [recorded(self.model, self.forward, small) for small in few]
        if not bool(self.forward(few[1]).isfinite().all()):
            raise DivergedError(
                "the base model's logits are not finite on the first training examples: its weights are damaged, or "
                "model.dtype is too narrow for it (float32 and bfloat16 reach further than float16)"
            )
        self._attribute(few[0], seed, *calls)
        self._choose_mode(few[1], seed, *calls)

    def _choose_mode(self, inputs: Inputs, seed: int, *calls: Calls) -> None:
        expected = self._two_passes(inputs, seed, TRIAL_MU)
        self.mode = "trial"
        fits = find_scales(self._owners, *calls) and self._agrees(inputs, seed, expected)
        self.late = fits and len(self.weights.params) < len(list(self.model.parameters()))
        self.late = self.late and self._agrees(inputs, seed, expected)
        if not self.late:
            for owner in self._owners:
                owner.single.clear()
        self.mode = "dual" if fits else "two-pass"
        self.packs = self._ignores_padding(inputs, seed, expected)

    def _ignores_padding(self, inputs: Inputs, seed: int, expected: tuple[Tensor, Tensor]) -> bool:
        """Are the logits of real tokens the same without products for padding? False also if there is no padding."""
        mask = inputs.get("attention_mask")
        if mask is None or mask.dim() != 2 or bool(mask.all()):
            return False
        self._packing = Packing.of(mask.flatten().nonzero().squeeze(1), mask.shape)
        seen = [x[mask.bool()] if x.shape[:2] == mask.shape else x for x in expected]
        try:
            got = (self._dual if self.mode == "dual" else self._two_passes)(inputs, seed, TRIAL_MU)
            return _close([x[mask.bool()] if x.shape[:2] == mask.shape else x for x in got], seen)
        except UNFIT:
            return False
        finally:
            self._packing = None

    def _agrees(self, inputs: Inputs, seed: int, expected: tuple[Tensor, Tensor]) -> bool:
        """Does the dual forward compute what two passes do?"""
        try:
            got = self._dual(inputs, seed, TRIAL_MU)
        except UNFIT:
            return False
        return _close(got, expected)

    def _attribute(self, inputs: Inputs, seed: int, two: Calls, three: Calls) -> None:
        """Give every parameter to a module inside whose forward all its reads happen, and whose input is the batch.

        At rest a parameter reads as NaN; if a NaN comes out, some module reads it outside its owner's forward, and
        the enclosing module that runs becomes its owner (torch's MultiheadAttention reads its child's weight so). So it
        does if its owner never sees the batch (BERT's position embeddings look up the same rows for all).
        """
        home, paths = self._settle(two, three)
        suspects = {site.name for site in home} if self._leaks(inputs, seed, list(home)) else set()
        for name in sorted(suspects):
            sites = [site for site in home if site.name == name]
            while self._leaks(inputs, seed, sites):
                assert any(home[site] for site in sites), f"{name} is read outside the model"
                for site in sites:
                    home[site] = enclosing(home[site], set(two), paths)
                self._owners = make_owners(home, paths)

    def _settle(self, two: Calls, three: Calls) -> tuple[dict[Site, str], dict[str, nn.Module]]:
        """Owners as far as shapes tell; (the path of each site's owner, all modules by path)."""
        paths = dict(self.model.named_modules())
        home = find_sites(self.model, self.weights)
        for site in home:
            if (seen := two.get(site.module)) and seen == three[site.module]:
                home[site] = enclosing(home[site], set(two), paths)
        self._owners = make_owners(home, paths)
        return home, paths

    def _leaks(self, inputs: Inputs, seed: int, sites: list[Site]) -> bool:
        """Does any module read one of `sites` while its owner is at rest?"""
        params = [site.param for site in sites]
        nothing = [torch.full((), torch.nan, dtype=p.dtype, device=p.device).expand(p.shape) for p in params]
        self._seed, self._mu, self._side = seed, 0.0, 1
        with swapped(sites, nothing), self._installed():
            return not bool(self.forward(inputs).isfinite().all())


def _close(got: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    tolerance = 1e-4 if expected[0].dtype == torch.float32 else 1e-2
    return all(
        a.shape == b.shape and bool((a - b).abs().max() <= tolerance * (1 + b.abs().max()))
        for a, b in zip(got, expected, strict=True)
    )
