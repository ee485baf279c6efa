"""The probe without weights: the same code on torch's meta device, to find out what a round would take.

A Probe whose Draws allocate and draw nothing, bound from shapes alone: its outputs have shapes and no meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..clock import Clock
from ..model.head import Inputs
from ..noise.layout import Piece
from .draws import BLOCK, Draws, Pass
from .dual import Probe
from .owners import Site, recorded
from .trial import choose_mode, settle


class ShadowDraws(Draws):
    """Allocates what Draws does.

    drawn: elements of z that it would have drawn.  device: "cpu" or "cuda", for which it stands.
    """

    def __init__(self, distribution: str, device: str) -> None:
        super().__init__(distribution, Clock())
        self.drawn, self._device = 0, device

    def perturbed(
        self, w: Tensor, piece: Piece, plus: Tensor, minus: Tensor, p: Pass, rows: Tensor | None = None
    ) -> list[Tensor]:
        """Tensors of the right shapes."""
        self.drawn += plus.numel()
        return [plus] if p.side else [plus, minus]

    def step(self, weight: Tensor) -> int:
        """All blocks in one: in turn, they would take the same scratch."""
        return len(weight)

    def block(self, site: Site | None, fixed: Tensor | None, low: int, high: int, p: Pass) -> list[Any]:
        """The weight itself, and scratch for a block of it."""
        if site is None:
            return super().block(site, fixed, low, high, p)
        w, width = site.param[low:high], site.param[0].numel()
        self.scratch(site, width * -(-len(site.param) // -(-site.param.numel() // BLOCK[self._device])))
        return self.perturbed(w, site.piece, w, w, p)

    def looked_up(self, xs: Sequence[Tensor], table: Tensor) -> tuple[Tensor, Tensor]:
        """As if no token came twice."""
        ids = torch.cat(list(xs))
        many = ids.numel() if self._device == "cuda" else min(xs[0].numel(), len(table))
        return ids.new_empty(many), ids


@torch.inference_mode()
def bind_shapes(probe: Probe, inputs: Inputs) -> None:
    """As trial.bind, of a model on the meta device; as if no sequence were shorter than the longest."""
    few = [{k: v[:1].expand(n, *v.shape[1:]) for k, v in inputs.items()} for n in (2, 3)]
    calls = [recorded(probe.model, probe.forward, small) for small in few]
    settle(probe, *calls)
    choose_mode(probe, few[1], 0, lambda got, expected: True, *calls)
