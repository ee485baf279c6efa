"""Do a checkpoint's tensors and the model of config.json fit, one to one? Only a classifier may lack its whole head.

Formula  a new head is 0.02 z (biases 0, scales of norms 1), z the gaussian direction of noise spec v1 that belongs to
         the parameter's name
Promise  a tensor that is not there, of another shape or without a place is an error that names it, never a random one
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import nn

from ..errors import ConfigError
from ..noise import fill_
from ..noise.layout import Piece
from ..seeds import derive

HEAD_STD = 0.02


def new_head(name: str, model: Any, missing: Collection[str], reshaped: Collection[str], own: int | None) -> None:
    """Give a classifier's head that the checkpoint lacks its values.

    name: what model.name says.  missing, reshaped: parameters that it has not, and those that it has in another shape.
    own: how many classes the checkpoint's head has by config.json, None if that names none, or another number than the
    task's is wanted.  Raises ConfigError for what else is missing.
    """
    classifier, new = "Classification" in type(model).__name__, {*missing, *reshaped}
    trunk = _trunk(model) + "."
    head = {key for key, _ in model.named_parameters() if not key.startswith(trunk)} if classifier else set()
    where = f"model.name={name!r}: the weights are not those of a whole {type(model).__name__}"
    if lost := sorted(key for key in new if key not in head and not (classifier and ".pooler." in key)):
        raise ConfigError(f"{where}: {_some(lost)} missing or of another shape than config.json says")
    lacking, kept = sorted(head & set(missing)), sorted(head - new)
    if lacking and (kept or reshaped):
        raise ConfigError(f"{where}: of its head {_some(lacking)} missing, but not {_some(kept or sorted(reshaped))}")
    if own is not None and own == model.config.num_labels and head & new:
        what = "missing" if lacking else "of another shape"
        raise ConfigError(
            f"{where}: {_some(sorted(head & new))} {what}, though config.json speaks of a head for {own} classes"
        )
    for key, parameter in model.named_parameters():
        if key not in new:
            continue
        if parameter.dim() < 2:
            norm = "norm" in key.lower() and key.endswith("weight")
            parameter.data = torch.full_like(parameter, float(norm))
            continue
        z = torch.empty(parameter.numel())
        fill_(z, derive(0, "head"), Piece.whole(key, parameter.numel()), "gaussian")
        parameter.data = (HEAD_STD * z).view(parameter.shape).to(parameter.dtype)


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def _trunk(model: Any) -> str:
    """The submodule that a classifier's head stands on; of a family that does not name it, the largest."""
    if isinstance(getattr(model, model.base_model_prefix, None), nn.Module):
        return str(model.base_model_prefix)
    sizes = {name: sum(p.numel() for p in child.parameters()) for name, child in model.named_children()}
    return max(sizes, key=lambda name: sizes[name])


def check_left_over(name: str, model: nn.Module, unexpected: Iterable[str]) -> None:
    """ConfigError if a tensor of the checkpoint that no parameter took belongs to a layer that the model has, or to one
    beyond its last. What belongs to another head, and masks that old checkpoints hold, may be left over.
    """
    extra = sorted(unexpected)
    if beyond := next((key for key in extra if _beyond(model, key)), None):
        raise ConfigError(
            f"model.name={name!r}: the weights have layers that the model of config.json lacks (first {beyond}); one "
            "of the two files belongs to another model"
        )
    modules = dict(model.named_modules())
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    for key in extra:
        parts = key.split(".")
        for n in range(len(parts) - 1, 0, -1):
            layer = modules.get(".".join(parts[:n])) or modules.get(prefix + ".".join(parts[:n]))
            if layer is not None and next(layer.parameters(recurse=False), None) is not None:
                raise ConfigError(
                    f"model.name={name!r}: the weights have {key}, which the model of config.json has no place for: "
                    "they are another model's, or an adapter or a quantised layer must be merged first"
                )
            if layer is not None:
                break


def _beyond(model: nn.Module, key: str) -> bool:
    """Whether it is of a numbered layer beyond the model's own."""
    stacks = {path: len(module) for path, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    for found in re.finditer(r"\.(\d+)\.", key):
        path = key[: found.start()]
        known = next((n for stack, n in stacks.items() if stack == path or stack.endswith(f".{path}")), None)
        if known is not None and int(found[1]) >= known:
            return True
    return False
