"""What a model is asked for: logits, and of a language model's head only those that somebody reads.

With single-token verbalisers a task scores C words out of a vocabulary of V: only C rows of the output embedding
matter, for the logits and for the direction alike. RowsLinear is that part of the head, on the same (possibly tied)
parameters, so neither names nor weights change.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..transport.row import Row

Inputs = dict[str, Tensor]  # every tensor has the batch (rows) in dimension 0
Forward = Callable[[Inputs], Tensor]  # inputs of R rows -> logits [R, ...]


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


def make_forward(model: nn.Module, row: Row, keep_last: int = 0, head_rows: Sequence[int] | None = None) -> Forward:
    """inputs [R, ...] -> logits, computed only where the task reads them.

    keep_last: the last positions that it reads (0: all).  head_rows: tokens whose logits it reads; None: all.
    """
    dtype = next(model.parameters()).dtype
    extra: dict[str, Any] = {}
    if keep_last and "logits_to_keep" in inspect.signature(model.forward).parameters:
        extra["logits_to_keep"] = keep_last
    pick = head_rows if head_rows is not None and not restrict_head(model, head_rows) else None

    def forward(inputs: dict[str, Tensor]) -> Tensor:
        inputs = {k: v.to(dtype) if v.is_floating_point() else v for k, v in inputs.items()}
        with row.peers():
            logits: Tensor = model(**inputs, **extra).logits
        return logits if pick is None else logits[..., pick]

    return forward
