"""The weights of one copy of the model: which parameters are trained, their elements' addresses, the fingerprint.

A tied parameter is one parameter, under the first name the model gives it. The fingerprint covers parameters and
persistent buffers (batch-norm statistics), so two models with one fingerprint compute the same thing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError, DivergedError
from ..noise import add_fingerprints, fingerprint
from ..noise.layout import Piece, Slice, layout_hash
from ..transport.row import Row

FLOATS = (torch.float32, torch.bfloat16, torch.float16)


class Weights:
    """Trained parameters by name, their pieces, and the cached fingerprint of everything else.

    train_only: fnmatch patterns of parameter names; empty trains all. Raises ConfigError if a pattern matches nothing.
    slices: what this shard of `row` holds of the parameters that are spread over it; the others are whole on each.
    """

    def __init__(
        self,
        model: nn.Module,
        train_only: Sequence[str] = (),
        slices: Mapping[str, Slice] | None = None,
        row: Row | None = None,
    ) -> None:
        self.row, self.slices = row or Row(), slices or {}
        named = dict(model.named_parameters())  # each tied parameter once, under its first name
        for pattern in train_only:
            if not any(fnmatchcase(name, pattern) for name in named):
                some = ", ".join([*list(named)[:3], "...", *list(named)[-3:]])
                raise ConfigError(
                    f"algorithm.train_only: {pattern!r} matches no parameter of the model (it has {some})"
                )
        self.params = {
            name: p for name, p in named.items() if not train_only or any(fnmatchcase(name, q) for q in train_only)
        }
        for name, p in self.params.items():
            if p.dtype not in FLOATS:
                raise ConfigError(
                    f"parameter {name} has dtype {p.dtype}; only float32, bfloat16 and float16 can be trained"
                )
            if not p.is_contiguous():
                p.data = p.data.contiguous()
        self.pieces = {name: self._piece(name, p) for name, p in self.params.items()}
        full = {name: self.slices[name].shape if name in self.slices else p.shape for name, p in self.params.items()}
        self.layout_hash = layout_hash(full)
        rest = {name: p for name, p in named.items() if name not in self.params} | _persistent_buffers(model)
        self._fixed = rest

    @cached_property
    def _rest(self) -> tuple[int, int]:
        return self._fingerprints(self._fixed)

    @property
    def numel(self) -> int:
        """Trained elements on this rank."""
        return sum(p.numel() for p in self.params.values())

    def fingerprint(self) -> str:
        """128 bits as 32 hex digits: all weights of the model, order-free, the same for every number of shards.

        Collective over the row.  Raises DivergedError if the shards differ in a parameter that each of them holds.
        """
        own = [add_fingerprints(a, b) for a, b in zip(self._rest, self._fingerprints(self.params), strict=True)]
        parts, whole = zip(*(_unpacked(raw) for raw in self.row.gather(_packed(*own))), strict=True)
        if len(set(whole)) > 1:
            raise DivergedError(f"the {self.row.shards} shards of a row differ in parameters that each of them holds")
        total = whole[0]
        for part in parts:
            total = add_fingerprints(total, part)
        return f"{total:032x}"

    def _piece(self, name: str, tensor: Tensor) -> Piece:
        return self.slices[name].piece(name) if name in self.slices else Piece.whole(name, tensor.numel())

    def _fingerprints(self, tensors: Mapping[str, Tensor]) -> tuple[int, int]:
        """Of this shard's slices, and of what every shard holds."""
        parts = whole = 0
        for name, t in tensors.items():
            piece = self.pieces[name] if name in self.pieces else self._piece(name, t)
            lanes = fingerprint(t.detach().contiguous(), piece)
            if name in self.slices:
                parts = add_fingerprints(parts, lanes)
            else:
                whole = add_fingerprints(whole, lanes)
        return parts, whole


class Copy:
    """A second copy of the trained weights, where the round's wait while a client walks.

    host: in main memory, wherever the weights are. Memory: as much as the trained weights take, from the first `take`.
    """

    def __init__(self, weights: Weights, host: bool = False) -> None:
        self._weights, self._host = weights, host
        self._kept: dict[str, Tensor] = {}

    def take(self) -> None:
        """Keep the weights as they are now."""
        for name, p in self._weights.params.items():
            if name not in self._kept:
                self._kept[name] = torch.empty_like(p.data, device="cpu" if self._host else p.device)
            self._kept[name].copy_(p.data)

    def give_back(self) -> None:
        """The weights are again what `take` found, bit for bit."""
        for name, p in self._weights.params.items():
            p.data.copy_(self._kept[name])


def _persistent_buffers(model: nn.Module) -> dict[str, Tensor]:
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    return {name: t for name, t in model.state_dict(keep_vars=True).items() if name not in parameters}


def memory(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous CPU tensor, of any dtype and shape: to read, and to write."""
    raw: Any = tensor.detach().view(-1).view(torch.uint8).numpy()
    return memoryview(raw)


def _packed(parts: int, whole: int) -> bytes:
    return parts.to_bytes(16, "little") + whole.to_bytes(16, "little")


def _unpacked(raw: bytes) -> tuple[int, int]:
    return int.from_bytes(raw[:16], "little"), int.from_bytes(raw[16:], "little")
