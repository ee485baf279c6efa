"""A digest of what a model's config.json says: weights alone do not say what is computed with them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from ..config import ModelConfig
from ..errors import ConfigError
from .load import model_path

SILENT = ("_name_or_path", "transformers_version")  # they say who wrote it


def config_digest(config: ModelConfig) -> str | None:
    """128-bit hex digest of a folder's config.json, or of the hub's that has been loaded; None if there is none."""
    try:
        path = Path(model_path(config.name))
        file: str | Path | None = path / "config.json"
        if not path.is_dir():
            from transformers.utils import cached_file

            file = cached_file(config.name, "config.json", revision=config.revision, local_files_only=True)
        fields = json.loads(Path(file).read_bytes()) if file else None
    except (OSError, ValueError, ConfigError):
        return None
    if not isinstance(fields, dict):
        return None
    told = {key: value for key, value in fields.items() if key not in SILENT}
    return hashlib.blake2b(json.dumps(told, sort_keys=True).encode(), digest_size=16).hexdigest()
