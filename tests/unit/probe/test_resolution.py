"""A perturbation that the weights' dtype cannot hold is refused; one that it can is not, whatever the data."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hpcfed.errors import ConfigError
from hpcfed.probe.resolution import check_mu, enough_mu, moved_share
from hpcfed.weights import Weights


def weights(dtype: torch.dtype, size: float) -> Weights:
    model = nn.Linear(50, 40, bias=False)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model.weight.data = (size * (1 + torch.rand(40, 50))).to(dtype)
    return Weights(model, [])


@pytest.mark.parametrize(
    ("dtype", "size", "mu", "fits"),
    [
        ("float32", 1.0, 1e-3, True),
        ("float32", 1.0, 1e-9, False),
        ("float32", 1e-3, 1e-9, True),
        ("bfloat16", 1.0, 1e-1, True),
        ("bfloat16", 1.0, 1e-3, False),
        ("bfloat16", 0.02, 1e-3, True),
        ("bfloat16", 0.02, 1e-9, False),
        ("float16", 1.0, 1e-3, True),
        ("float16", 1.0, 1e-4, False),
        ("float16", 0.02, 1e-9, False),
    ],
)
def test_mu_below_the_resolution_is_refused_with_one_that_is_enough(dtype: str, size: float, mu: float, fits: bool):
    held = weights(getattr(torch, dtype), size)
    if fits:
        check_mu(held, mu, dtype)
        return
    with pytest.raises(ConfigError, match=rf"algorithm\.mu={mu:g}: below the resolution of {dtype} weights") as error:
        check_mu(held, mu, dtype)
    enough = float(str(error.value).split("use at least ")[1].split(",")[0])
    assert moved_share(held, enough) >= 0.5 and enough == pytest.approx(enough_mu(held, mu))
    assert ('model.dtype="float32"' in str(error.value)) == (dtype != "float32")
