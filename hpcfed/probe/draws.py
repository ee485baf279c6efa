"""Where w + mu z and w - mu z come from: both of one draw of z, into scratch, never into w.

A linear layer's weight is drawn a block of output features at a time, which bounds scratch however large the layer; of
an embedding or a restricted head only the rows that are looked up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..clock import DIRECTIONS, Clock
from ..noise import perturb, perturb_rows
from ..noise.layout import Piece
from .owners import Owner, Site
from .packing import Packing

#: Elements of a linear layer's weight that are perturbed and multiplied at a time: which bounds scratch. Smaller blocks
#: cost more products (docs/PERFORMANCE.md); the GPU's is chosen on paper and not measured.
BLOCK = {"cpu": 2**22, "cuda": 2**26}


@dataclass(eq=False)
class Pass:
    """One evaluation of both sides: what every owner's turn is handed.

    seed: of z; int64 [1] on the device while a graph is captured.  mu: perturbation scale.  rows: R, of the batch.
    side: 0: both halves are in the batch; +1, -1: all of the batch runs on that side.
    packing: which tokens linear layers leave out, or None: none.
    trial: the owners note which of their inputs are not doubled yet (trial.py).
    """

    seed: int | Tensor
    mu: float
    rows: int = 0
    side: int = 0
    packing: Packing | None = None
    trial: bool = False

    @property
    def sides(self) -> int:
        """How many sides an owner evaluates in its turn."""
        return 1 if self.side else 2


class Draws:
    """distribution: of z.  clock: where the time of drawing goes."""

    def __init__(self, distribution: str, clock: Clock) -> None:
        self.distribution, self._clock = distribution, clock
        self._blocks: dict[tuple[str, torch.dtype], list[Tensor]] = {}  # scratch of linear layers

    def perturbed(
        self, w: Tensor, piece: Piece, plus: Tensor, minus: Tensor, p: Pass, rows: Tensor | None = None
    ) -> list[Tensor]:
        """w + mu z and w - mu z, of all or of some rows of w; or, inside one side, only that side's."""
        before = self._clock.to(DIRECTIONS)
        draw = partial(perturb, w) if rows is None else partial(perturb_rows, w, rows)
        if p.side == 0:
            draw(plus, minus, p.seed, p.mu, piece, self.distribution)
        else:  # w + (-mu) z has the bits of w - mu z
            draw(plus, None, p.seed, p.side * p.mu, piece, self.distribution)
        self._clock.to(before)
        return [plus] if p.side else [plus, minus]

    def whole(self, owner: Owner, p: Pass) -> list[list[Tensor]]:
        """Per side, the perturbed weights of all of an owner's sites."""
        each = [
            self.perturbed(site.param, site.piece, plus, minus, p)
            for site, plus, minus in zip(owner.sites, owner.plus, owner.minus, strict=True)
        ]
        return [list(side) for side in zip(*each, strict=True)]

    def step(self, weight: Tensor) -> int:
        """Output features in a block of a weight [n, width]; all blocks are of equal size."""
        return -(-len(weight) // -(-weight.numel() // BLOCK[weight.device.type]))

    def block(self, site: Site | None, fixed: Tensor | None, low: int, high: int, p: Pass) -> list[Any]:
        """Per side, rows low to high of a linear layer's weight or bias; `fixed` where no site of it is trained."""
        if site is None:
            return [None if fixed is None else fixed[low:high]] * p.sides
        w = site.param[low:high]
        size, width = w.numel(), site.param[0].numel()
        plus, minus = (buffer[:size].view(w.shape) for buffer in self.scratch(site, size))
        return self.perturbed(w, site.piece.part(low * width, high * width), plus, minus, p)

    def scratch(self, site: Site, size: int) -> list[Tensor]:
        """Two buffers for a block of so many elements; all layers share them."""
        key = site.attribute, site.param.dtype
        if key not in self._blocks or self._blocks[key][0].numel() < size:
            self._blocks[key] = [torch.empty(size, dtype=site.param.dtype, device=site.param.device) for _ in range(2)]
        return self._blocks[key]

    def all_scratch(self, owners: Sequence[Owner]) -> list[Tensor]:
        """Every buffer that a pass writes to."""
        of_owners = [buffer for owner in owners for buffer in (*owner.plus, *owner.minus)]
        return of_owners + [buffer for pair in self._blocks.values() for buffer in pair]

    def rows(self, site: Site, rows: Tensor, p: Pass) -> list[Tensor]:
        """Per side, some rows of a table, int64 [n] -> [n, ...]."""
        plus, minus = (site.param.new_empty(len(rows), *site.param.shape[1:]) for _ in range(2))
        return self.perturbed(site.param, site.piece, plus, minus, p, rows)

    def looked_up(self, xs: Sequence[Tensor], table: Tensor) -> tuple[Tensor, Tensor]:
        """(rows of the table that the token ids of all sides look up, for every id its place among them)."""
        ids = torch.cat(list(xs))
        if ids.is_cuda:  # a row a token, for torch.unique would wait until the device has counted them
            return ids.flatten(), torch.arange(ids.numel(), device=ids.device).view(ids.shape)
        return torch.unique(ids, return_inverse=True)
