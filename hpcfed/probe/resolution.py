"""Whether a perturbation is seen at all: w + mu z and w - mu z are rounded to w's dtype.

Formula  share of the weights with fl(w + mu) != fl(w - mu)
Promise  depends on the weights and mu alone, on no data, so it may be told of any run
"""

from __future__ import annotations

from ..errors import ConfigError
from ..weights import Weights

SAMPLE = 2**16  # elements of a parameter that are looked at
LEAST = 0.01  # share of the weights below which a probe is none


def moved_share(weights: Weights, mu: float) -> float:
    """Share in [0, 1] of this rank's trained weights, from a sample of each parameter, that a step of mu moves."""
    moved = total = 0.0
    for p in weights.params.values():
        some = p.data.reshape(-1)[:: max(1, p.numel() // SAMPLE)]
        moved += float(((some + mu) != (some - mu)).float().mean()) * p.numel()
        total += p.numel()
    return moved / max(total, 1.0)


def enough_mu(weights: Weights, mu: float) -> float:
    """The least of mu, 10 mu, 100 mu, ... that moves half of them."""
    while moved_share(weights, mu) < 0.5 and mu < 1:
        mu *= 10
    return mu


def check_mu(weights: Weights, mu: float, dtype: str) -> None:
    """ConfigError if mu moves almost none of the weights."""
    share = moved_share(weights, mu)
    if share < LEAST:
        cure = "" if dtype == "float32" else ', or model.dtype="float32"'
        raise ConfigError(
            f"algorithm.mu={mu:g}: below the resolution of {dtype} weights, {100 * share:.2g} % of which it would "
            f"move, so every slope is 0; use at least {enough_mu(weights, mu):.0e}{cure}"
        )
