"""The recipe: settings.py, task.py and methods.py have every setting, files.py reads and writes TOML and --set."""

from __future__ import annotations

from .files import load_recipe, shipped, to_toml, validate
from .manifest import Entry, Manifest, read_manifest
from .methods import METHODS, AlgorithmConfig, Traits, find_traits, load_method
from .settings import (
    AttackConfig,
    ClientsConfig,
    MeshConfig,
    ModelConfig,
    PrivacyConfig,
    Recipe,
    TaskConfig,
)

__all__ = [
    "METHODS",
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
    "Traits",
    "find_traits",
    "load_method",
    "load_recipe",
    "read_manifest",
    "shipped",
    "to_toml",
    "validate",
]
