"""The probe without weights: the same code on torch's meta device, to find out what a round would take."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..model.head import Inputs
from ..noise.layout import Piece
from .dual import UNFIT, Probe
from .owners import Owner, Site, recorded


class ShadowProbe(Probe):
    """Allocates and multiplies as a Probe, and draws nothing.

    drawn: elements of z that it would have drawn.  device: "cpu" or "cuda", for which it stands.
    """

    drawn = 0
    device = "cpu"

    @torch.inference_mode()
    def bind(self, inputs: Inputs, seed: int = 0) -> None:
        """As Probe.bind, from shapes alone: nothing can be found out here from what comes out."""
        few = [{k: v[:1].expand(n, *v.shape[1:]) for k, v in inputs.items()} for n in (2, 3)]
        calls = [recorded(self.model, self.forward, small) for small in few]
        self._settle(*calls)
        self._choose_mode(few[1], seed, *calls)

    def _agrees(self, inputs: Inputs, seed: int, expected: tuple[Tensor, Tensor]) -> bool:
        with suppress(*UNFIT):
            self._dual(inputs, seed, 0.0)
            return True
        return False

    def _ignores_padding(self, inputs: Inputs, seed: int, expected: tuple[Tensor, Tensor]) -> bool:
        return False  # as if no sequence were shorter than the longest

    def _perturbed(
        self, w: Tensor, piece: Piece, plus: Tensor, minus: Tensor, rows: Tensor | None = None
    ) -> list[Tensor]:
        self.drawn += plus.numel()
        return [plus] if self._side else [plus, minus]

    def _step(self, n: int, width: int, device: str) -> int:
        return n  # all blocks in one: in turn, they would take the same scratch

    def _block(self, site: Site | None, fixed: Tensor | None, low: int, high: int) -> list[Any]:
        if site is None:
            return super()._block(site, fixed, low, high)
        w, width = site.param[low:high], site.param[0].numel()
        self._scratch(site, width * super()._step(len(site.param), width, self.device))
        return self._perturbed(w, site.piece, w, w)

    def _embedding(self, owner: Owner, xs: list[Tensor]) -> Tensor:
        ids = torch.cat(xs)
        most = min(xs[0].numel(), len(owner.module.weight))  # as if no token came twice
        tables = self._drawn_rows(owner.sites[0], ids.new_empty(ids.numel() if self.device == "cuda" else most))
        return torch.cat([F.embedding(i, table) for i, table in zip(ids.chunk(len(xs)), tables, strict=True)])
