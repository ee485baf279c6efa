"""A tiny language model and its data."""

from __future__ import annotations

import pytest

from hpcfed.config import Recipe, validate
from hpcfed.train.problem import build_problem
from tests.support.small import save_tiny_folder, tiny_sst2


def recipe_of(tmp, **clients) -> Recipe:
    return validate(
        {
            "rounds": 1,
            "model": {"name": str(save_tiny_folder(tmp, "opt"))},
            "task": {"name": "sst2", "data": str(tiny_sst2(tmp))},
            "clients": {"count": 6, "batch": 5, "group": 2} | clients,
            "algorithm": {"lr": 1e-3},
            "mesh": {"threads": 1},
        }
    )


@pytest.fixture(scope="module")
def problem(tmp_path_factory):
    return build_problem(recipe_of(tmp_path_factory.mktemp("local")))
