"""The base model: load.py loads a whole one, shards.py a part of one, spread over the ranks of a row by DeepSpeed.

outline.py makes one without weights, for plans.
"""

from __future__ import annotations

from .load import HEAD_STD, load_model, load_processor, model_kind, save_model
from .outline import Outline, outline
from .shards import check_shards, load_shard, save_shards, without_sums

__all__ = [
    "HEAD_STD",
    "Outline",
    "check_shards",
    "load_model",
    "load_processor",
    "load_shard",
    "model_kind",
    "outline",
    "save_model",
    "save_shards",
    "without_sums",
]
