"""The smallest recipe, and what is said of an override of `digits` that is wrong."""

from __future__ import annotations

import pytest

from hpcfed.config import load_recipe
from hpcfed.errors import ConfigError

SMALLEST = {"rounds": 1, "model": {"name": "m"}, "task": {"name": "t"}, "algorithm": {"lr": 1e-3}}


def refused_override(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_recipe("digits", overrides)
    return str(caught.value)
