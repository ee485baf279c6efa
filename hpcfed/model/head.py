"""What a model is asked for: logits, and of a language model's head only those that somebody reads.

With single-token verbalisers a task scores C words out of a vocabulary of V: only C rows of the output embedding
matter, for the logits and for the direction alike. RowsLinear is that part of the head, on the same (possibly tied)
parameters, so neither names nor weights change. A model whose head does more than call its linear layer needs the whole
one (MobileBERT appends another matrix, BART adds a bias of its own): train/trial.py finds out.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
        self.__dict__["whole"] = linear  # not a child: parameters keep their names
        self.weight, self.bias = linear.weight, linear.bias
        self.rows: Tensor
        with torch.inference_mode(False):  # a backward pass keeps it, wherever the head was made
            self.register_buffer("rows", torch.as_tensor(rows, device=linear.weight.device), persistent=False)
        self.in_features, self.out_features = linear.in_features, linear.out_features

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight[self.rows], None if self.bias is None else self.bias[self.rows])


def restrict_head(model: nn.Module, rows: Sequence[int]) -> bool:
    """Replace the model's output embedding by its `rows`; False (and no change) if it has no plain linear one."""
    head = model.get_output_embeddings()  # type: ignore[operator]
    if type(head) is not nn.Linear:
        return False
    _replace(model, head, RowsLinear(head, rows))
    return True


def release_head(model: nn.Module) -> None:
    """Give the model its whole output embedding back."""
    for module in list(model.modules()):
        if isinstance(module, RowsLinear):
            _replace(model, module, module.__dict__["whole"])


@contextmanager
def whole_head(model: nn.Module) -> Iterator[None]:
    """Inside, the model has its whole output embedding."""
    parts = [module for module in model.modules() if isinstance(module, RowsLinear)]
    release_head(model)
    try:
        yield
    finally:
        for part in parts:
            _replace(model, part.__dict__["whole"], part)


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for parent in list(model.modules()):
        for attribute, child in list(parent._modules.items()):
            if child is old:
                setattr(parent, attribute, new)


def takes(model: nn.Module, argument: str) -> bool:
    """Whether the model's forward has an argument of this name."""
    return argument in inspect.signature(model.forward).parameters


def make_forward(
    model: nn.Module, row: Row, keep_last: int = 0, head_rows: Sequence[int] | None = None, restrict: bool = True
) -> Forward:
    """inputs [R, ...] -> logits, computed only where the task reads them.

    keep_last: the last positions that it reads (0: all).  head_rows: tokens whose logits it reads; None: all.
    restrict: compute no others, where the head is a plain linear layer; else they are picked from the logits of all.
    An input answer_mask [R, K], which no model takes, says that the last K + 1 positions are read.
    """
    release_head(model)
    dtype = next(model.parameters()).dtype
    keeps = takes(model, "logits_to_keep")
    extra: dict[str, Any] = {"logits_to_keep": keep_last} if keep_last and keeps else {}
    pick = None if head_rows is None or (restrict and restrict_head(model, head_rows)) else list(head_rows)

    def forward(inputs: dict[str, Tensor]) -> Tensor:
        inputs = {k: v.to(dtype) if v.is_floating_point() else v for k, v in inputs.items()}
        answers = inputs.pop("answer_mask", None)
        kept = {"logits_to_keep": answers.shape[1] + 1} if answers is not None and keeps else extra
        with row.peers():
            logits: Tensor = model(**inputs, **kept).logits
        return logits if pick is None else logits[..., pick]

    return forward


@torch.no_grad()
def computes(forward: Forward, inputs: Inputs, columns: int) -> bool:
    """Whether logits of so many tokens come out, which shapes alone can tell."""
    try:
        return forward(inputs).shape[-1] == columns
    except (RuntimeError, ValueError, IndexError):
        return False
