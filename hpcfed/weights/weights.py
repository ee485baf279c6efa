"""The weights of one copy of the model: which parameters are trained, their elements' addresses, the fingerprint.

A tied parameter is one parameter. The fingerprint covers parameters and persistent buffers (batch-norm statistics), so
two models with one fingerprint compute the same thing. Addresses and fingerprints go by the names of a checkpoint's
tensors, which outlive those in memory (model/names.py); what was made before that goes by the names in memory, and the
hash of the layout says which.
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

    train_only: fnmatch patterns of parameter names; empty trains all. A pattern that matches no name of the checkpoint
    means names in memory. Raises ConfigError if it matches none of these either.
    slices: what this shard of `row` holds of the parameters that are spread over it, by name in memory; the others are
    whole on each.  names: name in memory -> name in a checkpoint, where they differ.

    params, pieces: by name in a checkpoint.  patterns: train_only without names in memory.
    """

    def __init__(
        self,
        model: nn.Module,
        train_only: Sequence[str] = (),
        slices: Mapping[str, Slice] | None = None,
        row: Row | None = None,
        names: Mapping[str, str] | None = None,
    ) -> None:
        self.row, self.slices = row or Row(), slices or {}
        self._named = dict(model.named_parameters())  # each tied parameter once, under its first name
        self._buffers, self._train_only = _persistent_buffers(model), train_only
        self._go_by(names or {})
        for name, p in self.params.items():
            if p.dtype not in FLOATS:
                raise ConfigError(
                    f"parameter {name} has dtype {p.dtype}; only float32, bfloat16 and float16 can be trained"
                )
            if not p.is_contiguous():
                p.data = p.data.contiguous()

    def follow(self, layout: str) -> None:
        """Go by names in memory from now on, if `layout` is the hash of theirs: of what was made so before."""
        picked = [name for name in self._named if _matches(name, self._train_only)]
        if layout != self.layout_hash and layout == layout_hash({name: self._shape(name) for name in picked}):
            self._go_by({})
            self.__dict__.pop("_rest", None)

    def _go_by(self, names: Mapping[str, str]) -> None:
        self._names = names
        picked = {pattern: self._picked(pattern) for pattern in self._train_only}
        trained = {name for some in picked.values() for name in some} if picked else self._named.keys()
        self.patterns = tuple(p for pattern, some in picked.items() for p in self._portable(pattern, some))
        self.params = {self._name(name): p for name, p in self._named.items() if name in trained}
        rest = {name: p for name, p in self._named.items() if name not in trained} | self._buffers
        self._fixed = {self._name(name): t for name, t in rest.items()}
        self._parts = {self._name(name): part for name, part in self.slices.items()}
        self.pieces = {name: self._piece(name, p) for name, p in self.params.items()}
        self.layout_hash = layout_hash({self._name(name): self._shape(name) for name in trained})

    def _name(self, in_memory: str) -> str:
        return self._names.get(in_memory, in_memory)

    def _shape(self, in_memory: str) -> tuple[int, ...]:
        """Of the whole parameter."""
        return self.slices[in_memory].shape if in_memory in self.slices else tuple(self._named[in_memory].shape)

    def _picked(self, pattern: str) -> list[str]:
        """Names in memory of the parameters that a pattern of train_only means."""
        names = {name: self._name(name) for name in self._named}
        some = [name for name in names if fnmatchcase(names[name], pattern)]
        if some := some or [name for name in names if fnmatchcase(name, pattern)]:
            return some
        shown = ", ".join([*list(names.values())[:3], "...", *list(names.values())[-3:]])
        raise ConfigError(f"algorithm.train_only: {pattern!r} matches no parameter of the model (it has {shown})")

    def _portable(self, pattern: str, picked: Sequence[str]) -> list[str]:
        """The pattern itself; in place of one that means names in memory, the names of what it picks."""
        names = sorted(map(self._name, picked))
        return [pattern] if fnmatchcase(names[0], pattern) else names

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
        return self._parts[name].piece(name) if name in self._parts else Piece.whole(name, tensor.numel())

    def _fingerprints(self, tensors: Mapping[str, Tensor]) -> tuple[int, int]:
        """Of this shard's slices, and of what every shard holds."""
        parts = whole = 0
        for name, t in tensors.items():
            piece = self.pieces[name] if name in self.pieces else self._piece(name, t)
            lanes = fingerprint(t.detach().contiguous(), piece)
            if name in self._parts:
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


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)


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
