"""Packing: linear layers multiply the tokens of a batch that are no padding, and those alone.

A batch of sentences is padded to the length of its longest, and most of a forward pass is products of linear layers,
which see each token by itself. So a linear layer takes the real tokens out, and gives every padding token the output
of some real one: finite, and read by nobody, since attention masks padding out. Everything between linear layers runs
as the model wrote it.

Legend  R: rows, T: tokens a row, m: real tokens of a side; a side is R rows with w + mu z, or with w - mu z
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Packing:
    """shape: (R, T).  real: int64 [m], the real tokens' places among R * T.  back: int64 [2 R T], places among 2 m."""

    shape: torch.Size
    real: Tensor
    back: Tensor

    @staticmethod
    def of(real: Tensor, shape: torch.Size) -> Packing:
        """real, shape: as above; real has each place once."""
        place = torch.zeros(shape.numel(), dtype=torch.int64, device=real.device)
        place[real] = torch.arange(len(real), device=real.device)
        return Packing(shape, real, torch.cat([place, place + len(real)]))

    def fits(self, x: Tensor) -> bool:
        """Are these one side's tokens, [R, T, width] or [R * T, width]? Not a table that has as many rows."""
        return x.shape[:-1] in (self.shape, (self.shape.numel(),))

    def packed(self, rows: Tensor) -> Tensor:
        """[m, width] of the tokens [R * T, width] of one side."""
        return rows.index_select(0, self.real)  # rows[self.real] takes four times as long on a CPU

    def unpacked(self, out: Tensor) -> Tensor:
        """[R * T or 2 R T, n] of the outputs [m or 2 m, n] of one side or both."""
        return out.index_select(0, self.back[: len(self.back) // 2 * (len(out) // len(self.real))])
