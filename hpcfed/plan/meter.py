"""Bytes and arithmetic of code that runs on torch's meta device, where tensors have shapes but no memory.

    meter = Meter(there)              tensors that are there already do not count
    with meter.measuring(): ...       live, peak: bytes of the tensors that were made inside; flops: of matrix products

Promise  what is counted is what torch's allocator would be asked for, attention as the fused kernel does it (no matrix
         of scores in memory); not what allocator and matrix library keep. tests/unit/plan/test_plan.py: real runs
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten
ATTENTION = aten._scaled_dot_product_flash_attention_for_cpu
FLOPS = {
    **flop_registry,
    ATTENTION: flop_registry[aten._scaled_dot_product_flash_attention],
    aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        flop_registry[aten._scaled_dot_product_flash_attention_backward]
    ),
}
ASKS = (aten.item, aten.is_nonzero, aten._local_scalar_dense)


class Meter(TorchDispatchMode):
    """live, peak: bytes of meta tensors.  flops: of matrix products, convolutions and attention."""

    def __init__(self, there: Iterable[Tensor]) -> None:
        super().__init__()
        self.live = self.peak = self.flops = 0
        self._there = list(there)  # or another tensor could be made at the address of one that has gone
        self._sizes = {tensor.untyped_storage()._cdata: 0 for tensor in self._there}

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Count what happens inside; peak and flops begin at what is alive now, and at nothing."""
        self.peak, self.flops = self.live, 0
        with self, _FusedAttention():
            yield

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation on meta tensors and count what comes out."""
        kwargs, packet = kwargs or {}, func._overloadpacket
        if packet in ASKS and args[0].device.type == "meta":
            return 0  # "is the mask all ones?" No: the batch is padded
        if packet not in FLOPS:
            with self:  # without autograd, composite operations come here whole
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        out = func(*args, **kwargs)
        if packet in FLOPS:
            self.flops += FLOPS[packet](*args, **kwargs, out_val=out)
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.device.type == "meta":
                self._saw(tensor)
        return out

    def _saw(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._sizes:
            self._sizes[key] = size
            self.live += size
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self.live -= self._sizes.pop(key)


class _FusedAttention(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return (_attend if func is F.scaled_dot_product_attention else func)(*args, **(kwargs or {}))


def _attend(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, *_: Any, **__: Any) -> Any:
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.empty_like(attn_mask, dtype=q.dtype)  # the kernel adds a mask in the queries' dtype
    return ATTENTION(q, k, v, 0.0, False, attn_mask=attn_mask)[0]
