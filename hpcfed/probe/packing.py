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
    """real: int64 [m], the real tokens' places among R * T.  back: int64 [2 R T], each token's place among 2 m."""

    real: Tensor
    back: Tensor

    @staticmethod
    def of(real: Tensor, tokens: int) -> Packing:
        """real: as above, each place once.  tokens: R * T."""
        place = torch.zeros(tokens, dtype=torch.int64, device=real.device)
        place[real] = torch.arange(len(real), device=real.device)
        return Packing(real, torch.cat([place, place + len(real)]))

    def fits(self, rows: Tensor) -> bool:
        """Are these the tokens [R * T, width] of one side?"""
        return 2 * len(rows) == len(self.back)

    def packed(self, rows: Tensor) -> Tensor:
        """[m, width] of the tokens [R * T, width] of one side."""
        return rows.index_select(0, self.real)  # rows[self.real] takes four times as long on a CPU

    def unpacked(self, out: Tensor) -> Tensor:
        """[R * T or 2 R T, n] of the outputs [m or 2 m, n] of one side or both."""
        return out.index_select(0, self.back[: len(self.back) // 2 * (len(out) // len(self.real))])
