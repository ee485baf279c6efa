"""A shard's part of a checkpoint, read slice by slice, so that no rank ever holds the whole model.

    model = empty_model(config, kind, labels)             parameters without memory, buffers as they should be
    slices = spread_model(model, row)                     shards.py: now with memory, for this shard's part
    fill(model, slices, config, kind)                     read

Reads safetensors, in one file or in several, of a folder or of the hub.  Raises Unreadable for a checkpoint whose names
are not the model's own (transformers renames those of some old ones); such a model is loaded whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..config import ModelConfig
from ..errors import ConfigError
from ..noise.layout import Slice
from .complete import check_left_over, new_head
from .folder import INDEX, SINGLE
from .load import agree_on_padding, auto_class, label_options, load_config, model_path, own_classes, quiet


class Unreadable(Exception):
    """A checkpoint that cannot be read name by name."""


def empty_model(config: ModelConfig, kind: str, labels: Sequence[str]) -> nn.Module:
    """What load_model gives, with parameters on torch's meta device."""
    hf_config = load_config(config)
    for key, value in label_options(config, hf_config, kind, labels).items():
        setattr(hf_config, key, value)
    with quiet(), torch.random.fork_rng(devices=[]), _without_memory():
        model = auto_class(kind).from_config(hf_config, dtype=getattr(torch, config.dtype), trust_remote_code=False)
    assert isinstance(model, nn.Module)
    agree_on_padding(config, model, kind)
    if hasattr(model.config, "use_cache"):
        model.config.use_cache = False
    return model.eval().requires_grad_(False)


@contextmanager
def _without_memory() -> Iterator[None]:
    """Inside, a parameter loses its memory once a module has it, before anything is written there."""
    register = nn.Module.register_parameter

    def empty(module: nn.Module, name: str, param: nn.Parameter | None) -> None:
        if param is not None and not param.is_meta:  # one on meta may be tied: it must stay the same object
            param = nn.Parameter(param.data.to("meta"), requires_grad=param.requires_grad)
        register(module, name, param)

    with mock.patch.object(nn.Module, "register_parameter", empty):
        yield


def fill(model: Any, slices: Mapping[str, Slice], config: ModelConfig, kind: str) -> None:
    """Read this shard's part of every parameter and persistent buffer; give a classifier's new head its values."""
    files = _files(config)
    prefix = model.base_model_prefix + "."
    new, missing, used = set[str](), set[str](), set[str]()
    aliases: dict[int, list[str]] = {}
    for name, p in model.named_parameters(remove_duplicate=False):
        aliases.setdefault(id(p), []).append(name)
    names_of = {names[0]: names for names in aliases.values()}
    tensors, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    persistent = {name: b for name, b in model.state_dict(keep_vars=True).items() if name in buffers}
    for name, tensor in (tensors | persistent).items():
        known = [alias for given in names_of.get(name, [name]) for alias in (given, given.removeprefix(prefix))]
        key = next((alias for alias in known if alias in files), None)
        if key is None:
            missing.add(name)
        elif _read(files[key], key, tensor, slices.get(name)):
            used.add(key)
        else:
            new.add(name)
    new |= missing
    if new:
        if new & slices.keys() or new & persistent.keys() or not kind.endswith("classification"):
            raise Unreadable
        new_head(config.name, model, missing, new - missing, own_classes(load_config(config), kind))
    ties = {key for names in aliases.values() for name in names for key in (name, name.removeprefix(prefix))}
    try:
        check_left_over(config.name, model, files.keys() - used - ties)
    except ConfigError:  # transformers knows of tensors that are left over in some families: it decides
        raise Unreadable from None
    model._weight_conversions = []  # what transformers notes of a model it has loaded: no name was another


@torch.no_grad()
def _read(file: Path, key: str, into: Tensor, part: Slice | None) -> bool:
    """into <- the part of the file's tensor, in into's dtype; False if that has another shape than the model's."""
    with safe_open(file, "pt") as opened:  # anew for each: an open file keeps all pages that were read of it
        stored = opened.get_slice(key)
        if tuple(stored.get_shape()) != (part.shape if part else tuple(into.shape)):
            return False
        if part is None:
            into.copy_(stored[:] if into.dim() else opened.get_tensor(key))
            return True
        done = 0
        for low, high in _runs(part.index):
            read = stored[low:high] if part.dim == 0 else stored[:, low:high]
            into.narrow(part.dim, done, high - low).copy_(read)
            done += high - low
    return True


def _runs(index: np.ndarray) -> list[tuple[int, int]]:
    """[3, 4, 5, 9] -> [(3, 6), (9, 10)]."""
    breaks = np.flatnonzero(np.diff(index) != 1) + 1
    return [(int(run[0]), int(run[-1]) + 1) for run in np.split(index, breaks) if len(run)]


def _files(config: ModelConfig) -> dict[str, Path]:
    """Which safetensors file has which tensor."""
    from transformers.utils import cached_file

    def find(name: str) -> Path | None:
        cached = cached_file(
            model_path(config.name),
            name,
            revision=config.revision or "main",
            _raise_exceptions_for_missing_entries=False,
        )
        return Path(cached) if cached else None

    try:
        with quiet():
            index = find(INDEX)
            names = set(json.loads(index.read_text())["weight_map"].values()) if index else {SINGLE}
            paths = [find(name) for name in sorted(names)]
        file_of: dict[str, Path] = {}
        for path in paths:
            if path is None:
                raise Unreadable
            with safe_open(path, "pt") as opened:
                file_of |= dict.fromkeys(opened.keys(), path)
    except (OSError, ValueError, KeyError, SafetensorError):
        raise Unreadable from None
    return file_of
