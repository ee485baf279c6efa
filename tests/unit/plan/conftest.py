"""A model of which only the configuration is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.small import tiny_config


@pytest.fixture(scope="module")
def config_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but config.json."""
    folder = tmp_path_factory.mktemp("config")
    config = tiny_config("opt", 2, True, 8)
    config.architectures = ["OPTForCausalLM"]
    config.save_pretrained(folder)
    assert [file.name for file in folder.iterdir()] == ["config.json"]
    return folder
