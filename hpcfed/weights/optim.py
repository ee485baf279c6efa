"""torch.optim by name: every optimiser that needs nothing but a dense gradient, and what is wrong with the others.

Promise  a wrong name, option or value is a ConfigError when the optimiser is made, not in the first round
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError, did_you_mean, first_line

UNFIT = {
    "LBFGS": "evaluates the loss again within a step, which costs more passes than the round has",
    "SparseAdam": "takes sparse gradients; these are dense",
}


def optimizers() -> dict[str, Callable[..., torch.optim.Optimizer]]:
    """Those of torch.optim that can be used, by name."""
    return {name: value for name, value in vars(torch.optim).items() if _is_optimizer(value) and name not in UNFIT}


def _is_optimizer(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, torch.optim.Optimizer) and value is not torch.optim.Optimizer


def make_optimizer(
    name: str, params: Sequence[Tensor], lr: float, options: Mapping[str, Any] | None = None
) -> torch.optim.Optimizer:
    """torch.optim.<name>(params, lr=lr, **options), without any state yet.

    options: lists stand for tuples (TOML has none).  Raises ConfigError that names algorithm.optimizer or
    algorithm.optimizer_options. One step on a parameter of one element is tried first: some optimisers look at an
    option only then.
    """
    known = optimizers()
    if name in UNFIT:
        cure = f"use one of {', '.join(sorted(known))}"
        raise ConfigError(f"algorithm.optimizer={name!r}: torch.optim.{name} {UNFIT[name]}; {cure}")
    if name not in known:
        meant = next((right for right in known if right.lower() == name.lower()), name)  # sgd is SGD
        raise ConfigError(f"algorithm.optimizer={name!r} is unknown{did_you_mean(meant, known)}")
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in (options or {}).items()}
    _check_names(name, known[name], given)
    try:
        trial = nn.Parameter(torch.zeros(1, 1, dtype=params[0].dtype, device=params[0].device))
        trial.grad = torch.ones_like(trial)
        known[name]([trial], lr=lr, **given).step()
    except (TypeError, ValueError, LookupError, RuntimeError, AssertionError, ArithmeticError) as e:
        raise ConfigError(
            f"algorithm.optimizer_options={dict(options or {})}: torch.optim.{name} says: {first_line(e)}"
        ) from None
    try:
        return known[name](params, lr=lr, **given)
    except (TypeError, ValueError) as e:  # Muon moves matrices only
        raise ConfigError(
            f"algorithm.optimizer={name!r} does not take these parameters ({first_line(e)}); use another optimiser, or "
            "choose parameters by algorithm.train_only"
        ) from None


def _check_names(name: str, optimizer: Callable[..., torch.optim.Optimizer], options: Mapping[str, Any]) -> None:
    """ConfigError for an option that torch.optim.<name> does not have."""
    if "lr" in options:
        raise ConfigError(f"algorithm.optimizer_options.lr={options['lr']}: the step size has a place: algorithm.lr")
    known = [key for key in inspect.signature(optimizer).parameters if key not in ("self", "params", "lr")]
    for key in options:
        if key not in known:
            raise ConfigError(
                f"algorithm.optimizer_options.{key}: torch.optim.{name} has no such option{did_you_mean(key, known)}"
            )
