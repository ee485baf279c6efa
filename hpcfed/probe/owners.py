"""Who owns a trained parameter: the module inside whose forward all its reads happen, and whose batch comes first.

A Site is a place where a parameter is read (a tied one has several), an Owner a module that runs with perturbed
weights. Nothing here draws or runs a model: draws.py draws, dual.py runs, trial.py finds out what this file is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..model.head import Forward, Inputs, RowsLinear
from ..noise.layout import Piece
from ..weights import Weights

Key = int | str | tuple[int | str, int]  # a positional argument, a keyword, or a tensor inside a tuple
Calls = dict[nn.Module, list[dict[Key, torch.Size]]]  # per module and call: the shape of each tensor argument


class NotBatchFirst(Exception):
    """A module keeps something else than the batch in dimension 0."""


@dataclass(eq=False)
class Site:
    """A place where a trained parameter is read: module.<attribute>."""

    module: nn.Module
    attribute: str
    name: str
    param: Tensor
    piece: Piece


@dataclass(eq=False)
class Owner:
    """A module whose forward runs with perturbed weights.

    scales: positional index or keyword -> k, for tensor arguments with k * R rows when the trial batch has R (k is
    the number of tokens where a model flattens its sequences, so it is a fact about the trial only).
    single: those of them that are not doubled yet when they come here (late doubling).
    in_parts: it draws a part of its weights at a time (blocks, rows looked up), so it needs no scratch of their size.
    before: a forward of its own, which its class does not know, while it has a turn.
    plus, minus: scratch for its sites; shared by all owners without children, since only one of them runs at a time.
    """

    module: Any  # nn.Module; its weight and bias are what its sites say
    sites: list[Site]
    in_parts: bool = False
    scales: dict[int | str, int] = field(default_factory=dict)
    single: set[int | str] = field(default_factory=set)
    plus: list[Tensor] = field(default_factory=list)
    minus: list[Tensor] = field(default_factory=list)
    before: dict[str, Any] = field(default_factory=dict)

    @property
    def shares(self) -> bool:
        return not self.in_parts and not any(self.module.children())

    def sizes(self) -> dict[torch.dtype, int]:
        """Elements it needs, a dtype."""
        elements: dict[torch.dtype, int] = {}
        for site in self.sites:
            elements[site.param.dtype] = elements.get(site.param.dtype, 0) + site.param.numel()
        return elements


def find_sites(model: nn.Module, weights: Weights) -> dict[Site, str]:
    """Every place that reads a trained parameter, with the path of the module that holds it."""
    names = {id(p): name for name, p in weights.params.items()}
    return {
        Site(module, attribute, names[id(p)], p.data, weights.pieces[names[id(p)]]): path
        for path, module in model.named_modules()
        for attribute, p in module.named_parameters(recurse=False, remove_duplicate=False)
        if id(p) in names
    }


def make_owners(home: dict[Site, str], paths: dict[str, nn.Module]) -> list[Owner]:
    """One owner a path that is some site's home, with scratch.

    Those without children share one pair of buffers a dtype. An owner with children has scratch of its own, since
    its children's turn comes while its own weights are read.
    """
    sites: dict[str, list[Site]] = {}
    for site, path in home.items():
        sites.setdefault(path, []).append(site)
    owners = [Owner(paths[path], sites[path], _in_parts(paths[path])) for path in paths if path in sites]
    sizes: dict[torch.dtype, int] = {}
    for owner in owners:
        if owner.shares:
            for dtype, need in owner.sizes().items():
                sizes[dtype] = max(sizes.get(dtype, 0), need)
    shared = {
        dtype: [torch.empty(n, dtype=dtype, device=owners[0].sites[0].param.device) for _ in range(2)]
        for dtype, n in sizes.items()
    }
    for owner in owners:
        if owner.in_parts:
            continue
        used = dict.fromkeys(sizes, 0)
        for site in owner.sites:
            p, n = site.param, site.param.numel()
            if owner.shares:
                at = slice(used[p.dtype], used[p.dtype] + n)
                used[p.dtype] += n
                pair = [buffer[at].view(p.shape) for buffer in shared[p.dtype]]
            else:
                pair = [torch.empty_like(p), torch.empty_like(p)]
            owner.plus.append(pair[0])
            owner.minus.append(pair[1])
    return owners


def _in_parts(module: nn.Module) -> bool:
    """A kind that dual.py computes itself (the last are those of model/shards.py), unless its forward was patched."""
    known = type(module) in (nn.Linear, nn.Embedding, RowsLinear) or "in_row" in module.__dict__
    return known and "forward" not in module.__dict__


def find_scales(owners: Sequence[Owner], two: Calls, three: Calls) -> bool:
    """Note which arguments of each owner carry the batch, from runs with 2 and with 3 rows.

    False if the batch is not in dimension 0, and there alone.
    """
    for owner in owners:
        a, b = two.get(owner.module, []), three.get(owner.module, [])
        if [set(call) for call in a] != [set(call) for call in b]:
            return False
        pairs = [(key, x[key], y[key]) for x, y in zip(a, b, strict=True) for key in x if x[key] != y[key]]
        for key, m, n in pairs:
            if isinstance(key, tuple) or m[1:] != n[1:] or 3 * m[0] != 2 * n[0]:
                return False
            if owner.scales.setdefault(key, m[0] // 2) != m[0] // 2:
                return False
    return True


def recorded(model: nn.Module, forward: Forward, inputs: Inputs) -> Calls:
    """Run `forward` and note which modules ran, and the shapes of their tensor arguments."""
    calls: Calls = {}

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        shapes: dict[Key, torch.Size] = {}
        everything: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
        for key, value in everything:
            for i, x in enumerate(value if isinstance(value, tuple | list) else [value]):
                if isinstance(x, Tensor) and x.dim():
                    shapes[key if x is value else (key, i)] = x.shape
        calls.setdefault(module, []).append(shapes)

    hooks = [module.register_forward_pre_hook(note, with_kwargs=True) for module in model.modules()]
    try:
        forward(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def enclosing(path: str, ran: set[nn.Module], paths: dict[str, nn.Module]) -> str:
    """The nearest module around `path` whose forward runs ("" is the model itself, which always does)."""
    while path:
        path = path.rpartition(".")[0]
        if paths[path] in ran:
            break
    return path


@contextmanager
def swapped(sites: Sequence[Site], weights: Sequence[Tensor]) -> Iterator[None]:
    """Inside, the sites' modules read `weights`; the parameters themselves are not touched."""
    before = [site.module._parameters[site.attribute] for site in sites]
    try:
        for site, w in zip(sites, weights, strict=True):
            site.module._parameters[site.attribute] = w  # type: ignore[assignment]
        yield
    finally:
        for site, old in zip(sites, before, strict=True):
            site.module._parameters[site.attribute] = old


def join(outputs: list[Any]) -> Any:
    """The outputs of both sides as one of twice the rows; a single side's output as it is."""
    if len(outputs) == 1:
        return outputs[0]
    first = outputs[0]
    if isinstance(first, Tensor):
        return torch.cat(outputs)
    if isinstance(first, tuple | list):
        parts = [join(list(pair)) for pair in zip(*outputs, strict=True)]
        return type(first)(*parts) if hasattr(first, "_fields") else type(first)(parts)
    if first is None:
        return None
    raise NotBatchFirst
