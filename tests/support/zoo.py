"""A zoo: tiny random models of many families of transformers, their folders, and what each says by itself.

A family is a line of FAMILIES: what of COMMON its configuration has is set, then its own settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import AutoConfig, PreTrainedTokenizerFast

from tests.support.small import VOCABULARY, sentences, tiny_tokenizer, write_jsonl

AUTO = {
    "causal-lm": "AutoModelForCausalLM",
    "masked-lm": "AutoModelForMaskedLM",
    "sequence-classification": "AutoModelForSequenceClassification",
    "image-classification": "AutoModelForImageClassification",
}
_FOUR = ("num_attention_heads", "encoder_attention_heads", "decoder_attention_heads", "attention_heads", "num_heads")
_TWO = ("num_hidden_layers", "encoder_layers", "decoder_layers", "num_layers", "n_layer", "n_layers")
_WIDE = ("intermediate_size", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "d_ff", "d_inner", "dff", "hidden_dim")
_WIDTH = ("hidden_size", "d_model", "n_embd", "dim", "emb_dim", "word_embed_proj_dim")
COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "max_position_embeddings": 64,
    "n_positions": 64, "num_key_value_heads": 2, "head_dim": 8, "n_head": 4, "n_heads": 4, "embedding_size": 16,
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1,
    "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16, "topk_group": 1, "first_k_dense_replace": 1,
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8,
    "rotary_dim": 8, "type_vocab_size": 2, "num_labels": 2,
    **dict.fromkeys(_FOUR, 4), **dict.fromkeys(_TWO, 2), **dict.fromkeys(_WIDE, 48), **dict.fromkeys(_WIDTH, 32),
}  # fmt: skip


def zoo_config(family: str, **own: Any) -> Any:
    """transformers' configuration of a tiny model; `own` settings win, one of None is left as it is."""
    plain = AutoConfig.for_model(family)
    names = {name: value for name, value in COMMON.items() if hasattr(plain, name)} | own
    return AutoConfig.for_model(family, **{k: v for k, v in names.items() if v is not None})


def zoo_model(kind: str, family: str, own: Mapping[str, Any]) -> nn.Module:
    """A tiny model of random weights, large enough for what is wrong to show."""
    config = zoo_config(family, **own)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(transformers, AUTO[kind]).from_config(config)
        for parameter in model.parameters():
            if parameter.dim() > 1 and parameter.is_floating_point():
                parameter.data.normal_(0, 0.15)
        for name, buffer in model.named_buffers():
            if "running_var" in name:
                buffer.uniform_(0.5, 1.5)
            if "logits_bias" in name:  # BART's
                buffer.normal_()
        model.tie_weights()
    if hasattr(model.config, "use_cache"):
        model.config.use_cache = False
    return model.eval().requires_grad_(False)


def zoo_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """<s> text </s> for all but causal models, which get the text alone."""
    return tiny_tokenizer("llama", adds_bos=False) if kind == "causal-lm" else tiny_tokenizer("roberta")


def zoo_data(folder: Path) -> Path:
    """Sentences in the columns of SST-2, of 4 to 12 words."""
    for seed, (split, count) in enumerate({"train": 12, "validation": 4}.items()):
        write_jsonl(folder / f"{split}.jsonl", sentences(count, seed))
    return folder
