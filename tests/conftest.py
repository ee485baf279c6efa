"""What every test begins with: Triton's interpreter where there is no GPU, and one thread; long tests come first.

The interpreter is chosen before Triton is first imported. Runs set the number of threads of their process.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest
import torch

if not torch.cuda.is_available():
    assert "triton" not in sys.modules
    os.environ["TRITON_INTERPRET"] = "1"

from hpcfed.noise import set_threads


def _one_thread() -> None:
    torch.set_num_threads(1)
    set_threads(None)  # as many as torch


_one_thread()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked as long come first: for one that starts last, the other processes would wait with nothing to do."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)  # the others stay in order


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    yield
    _one_thread()
