"""What a parameter is called in a checkpoint: a tensor's name there outlives the names in memory.

From version 5 on transformers renames on loading (a ViT's `encoder.layer.0.attention.attention.query.weight` in the
file is `layers.0.attention.q_proj.weight` in memory) and renames back on saving; in version 4 the file's names are
those in memory.

Promise  one checkpoint gives its parameters the same names under either version: those that save_pretrained writes,
         with the base model's prefix, whether the file has it or not; a tied embedding has the embedding's.
Limit    where a parameter is made of parts of several tensors, or of one that is turned round (experts that are merged
         on loading), no tensor's name is its own: it keeps the name in memory
"""

from __future__ import annotations

from typing import Any

from torch import nn


def checkpoint_names(model: Any) -> dict[str, str]:
    """Name in memory -> name in a checkpoint, of every parameter and persistent buffer, and no name twice.

    Tied parameters: once, under the first name in memory, as named_parameters has them.
    """
    aliases = dict(model.named_parameters(remove_duplicate=False))
    buffers = [name for name in model.state_dict() if name not in aliases]
    written = {name: name for name, _ in model.named_parameters()} | {name: name for name in buffers}
    if (embedding := _embedding(model)) in aliases:
        first = next(name for name, p in aliases.items() if p is aliases[embedding])
        written[first] = embedding
    renamings, converters = _on_saving(model)
    names = {name: _renamed(write, renamings, converters) for name, write in written.items()}
    return names if len(set(names.values())) == len(names) else {name: name for name in names}


def _embedding(model: Any) -> str:
    """The name in memory of the input embedding's weight; "" if there is none."""
    try:
        module = model.get_input_embeddings()
    except (AttributeError, NotImplementedError):  # no transformers model, or one of images
        return ""
    path = next((path for path, other in model.named_modules() if other is module), None)
    return f"{path}.weight" if path and isinstance(module, nn.Embedding) else ""


def _renamed(name: str, renamings: list[Any], converters: list[Any]) -> str:
    if any(converter.rename_source_key(name)[1] is not None for converter in converters):
        return name
    for renaming in renamings:
        name, _ = renaming.rename_source_key(name)
    return name


def _on_saving(model: Any) -> tuple[list[Any], list[Any]]:
    """What transformers does to names when it saves: renamings, in order, and conversions that make other tensors.

    Of a model that was loaded, what its checkpoint needed; else what its class says. Without names that are read and
    not in use any more (LayerNorm.gamma of a BERT of 2018), which version 4 has never had in memory.
    """
    try:
        from transformers.conversion_mapping import get_checkpoint_conversion_mapping, get_model_conversion_mapping
        from transformers.core_model_loading import PrefixChange, WeightConverter
        from transformers.modeling_utils import PreTrainedModel
    except ImportError:  # version 4
        return [], []
    if not isinstance(model, PreTrainedModel):
        return [], []
    needed = getattr(model, "_weight_conversions", None)
    if needed is None:
        needed = [c for c in get_model_conversion_mapping(model, add_legacy=False) if not isinstance(c, PrefixChange)]
    legacy = [(c.source_patterns, c.target_patterns) for c in get_checkpoint_conversion_mapping("legacy") or ()]
    used = [c for c in needed[::-1] if (c.source_patterns, c.target_patterns) not in legacy]
    back = [c.reverse_transform() for c in used]
    converters = [c for c in back if isinstance(c, WeightConverter)]
    return [c for c in back if not isinstance(c, WeightConverter)], converters
