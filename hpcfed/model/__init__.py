"""The base model: load.py loads a whole one, shards.py a part of one, spread over the ranks of a row by DeepSpeed.

outline.py makes one without weights, for plans.
"""

from __future__ import annotations

from .complete import HEAD_STD
from .labels import HeadLabels, head_labels
from .load import load_model, load_processor, model_kind
from .names import checkpoint_names
from .outline import Outline, outline
from .save import save_model
from .shards import check_shards, load_shard, save_shards, without_sums

__all__ = [
    "HEAD_STD",
    "HeadLabels",
    "Outline",
    "check_shards",
    "checkpoint_names",
    "head_labels",
    "load_model",
    "load_processor",
    "load_shard",
    "model_kind",
    "outline",
    "save_model",
    "save_shards",
    "without_sums",
]
