"""A tiny language model and its data, with the weights it was loaded with in every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hpcfed.train.problem import build_problem
from tests.support.first_order import recipe_of
from tests.support.small import save_tiny_folder, tiny_sst2


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    tmp = tmp_path_factory.mktemp("dense")
    return {"name": str(save_tiny_folder(tmp, "opt")), "data": str(tiny_sst2(tmp))}


@pytest.fixture(scope="module")
def loaded(folders):
    return build_problem(recipe_of(folders))


@pytest.fixture
def problem(loaded) -> Iterator:
    """The problem with the weights it was loaded with."""
    before = {name: p.data.clone() for name, p in loaded.weights.params.items()}
    yield loaded
    for name, p in loaded.weights.params.items():
        p.data.copy_(before[name])
