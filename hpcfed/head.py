"""A language model's head that computes only the logits somebody reads.

With single-token verbalisers a task scores C words out of a vocabulary of V: only C rows of the output embedding
matter, for the logits and for the direction alike. RowsLinear is that part of the head, on the same (possibly tied)
parameters, so neither names nor weights change.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RowsLinear(nn.Module):
    """x [..., in] -> x weight[rows]^T + bias[rows], shape [..., len(rows)]; shares `linear`'s parameters."""

    def __init__(self, linear: nn.Linear, rows: Sequence[int]) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.rows: Tensor
        self.register_buffer("rows", torch.as_tensor(rows, device=linear.weight.device), persistent=False)
        self.in_features, self.out_features = linear.in_features, linear.out_features

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight[self.rows], None if self.bias is None else self.bias[self.rows])


def restrict_head(model: nn.Module, rows: Sequence[int]) -> bool:
    """Replace the model's output embedding by its `rows`; False (and no change) if it has no plain linear one."""
    head = model.get_output_embeddings()  # type: ignore[operator]
    if type(head) is not nn.Linear:
        return False
    path = next(name for name, module in model.named_modules() if module is head)
    parent, _, attribute = path.rpartition(".")
    setattr(model.get_submodule(parent), attribute, RowsLinear(head, rows))
    return True
