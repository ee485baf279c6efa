"""The recipe: settings.py has every setting with its default and check, files.py reads and writes TOML and --set."""

from __future__ import annotations

from .files import load_recipe, shipped, to_toml, validate
from .manifest import Entry, Manifest, read_manifest
from .settings import (
    ALGORITHM_NAMES,
    DENSE,
    POOLED,
    WALKERS,
    AlgorithmConfig,
    AttackConfig,
    ClientsConfig,
    MeshConfig,
    ModelConfig,
    PrivacyConfig,
    Recipe,
    TaskConfig,
)

__all__ = [
    "ALGORITHM_NAMES",
    "DENSE",
    "POOLED",
    "WALKERS",
    "AlgorithmConfig",
    "AttackConfig",
    "ClientsConfig",
    "Entry",
    "Manifest",
    "MeshConfig",
    "ModelConfig",
    "PrivacyConfig",
    "Recipe",
    "TaskConfig",
    "load_recipe",
    "read_manifest",
    "shipped",
    "to_toml",
    "validate",
]
