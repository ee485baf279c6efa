"""What a model computes with its weights, by its config.json: any change of it is seen, and who wrote it is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpcfed.config import ModelConfig
from hpcfed.model.digest import config_digest
from tests.support.small import save_tiny_folder


def digest(folder: Path) -> str | None:
    return config_digest(ModelConfig(name=str(folder)))


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"transformers_version": "0.1"}, True),
        ({"_name_or_path": "elsewhere"}, True),
        ({"activation_function": "gelu"}, False),
        ({"do_layer_norm_before": False}, False),
        ({"pad_token_id": 5}, False),
        ({"new": None}, False),
    ],
)
def test_every_change_that_may_matter_is_seen(tmp_path: Path, change: dict[str, Any], same: bool):
    folder = save_tiny_folder(tmp_path, "opt")
    before, file = digest(folder), folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change, indent=7))
    assert before and (digest(folder) == before) == same


def test_the_shipped_model_has_one_and_what_is_not_there_has_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert config_digest(ModelConfig(name="digits-vit")) and config_digest(ModelConfig(name="no/where")) is None
