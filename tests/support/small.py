"""Small things for tests: models of every supported family with random weights, a tokenizer, data folders.

Everything is a function of its arguments: seeded inside a forked generator, nothing read from outside.

    tiny_model("opt")                     OPT causal LM, tied head, 3 layers of width 32
    tiny_tokenizer("opt")                 byte-level BPE in which every word of SENTENCES and VERBALIZERS is one token
    save_tiny_folder(tmp_path, "opt")     both, as a folder that transformers' from_pretrained loads
    tiny_sst2(tmp_path)                   train/validation/test.jsonl whose labels follow from one word
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    OPTConfig,
    OPTForCausalLM,
    OPTForSequenceClassification,
    PreTrainedTokenizerFast,
    ResNetConfig,
    ResNetForImageClassification,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaForSequenceClassification,
    ViTConfig,
    ViTForImageClassification,
)

GOOD = ["great", "good", "lovely", "bright", "superb", "moving"]
BAD = ["terrible", "bad", "dull", "awful", "weak", "boring"]
THINGS = ["film", "story", "cast", "plot", "scene", "ending"]
VERBALIZERS = ["Yes", "No", "Maybe", "okay", "It", "was", "Question", "Answer", "true", "false"]
VOCABULARY = 512

#: What each kind is, unless `head` says otherwise.
HEADS = {
    "opt": "causal-lm",
    "llama": "causal-lm",
    "roberta": "masked-lm",
    "vit": "image-classification",
    "resnet": "image-classification",
}

CLASSES: dict[tuple[str, str], Any] = {
    ("opt", "causal-lm"): OPTForCausalLM,
    ("opt", "sequence-classification"): OPTForSequenceClassification,
    ("llama", "causal-lm"): LlamaForCausalLM,
    ("llama", "sequence-classification"): LlamaForSequenceClassification,
    ("roberta", "masked-lm"): RobertaForMaskedLM,
    ("roberta", "sequence-classification"): RobertaForSequenceClassification,
    ("vit", "image-classification"): ViTForImageClassification,
    ("resnet", "image-classification"): ResNetForImageClassification,
}


def tiny_config(kind: str, labels: int = 2, tied: bool | None = None, size: int = 8) -> Any:
    """A transformers config: vocabulary 512, 128 positions; images [1, size, size] for vit and resnet."""
    ids = {"pad_token_id": 1, "bos_token_id": 0 if kind == "roberta" else 2, "eos_token_id": 2}
    if kind == "opt":
        return OPTConfig(
            vocab_size=VOCABULARY, hidden_size=32, word_embed_proj_dim=32, ffn_dim=64, num_hidden_layers=3,
            num_attention_heads=4, max_position_embeddings=128, dropout=0.1, num_labels=labels,
            tie_word_embeddings=True if tied is None else tied, **ids,
        )  # fmt: skip
    if kind == "llama":
        return LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=128, num_labels=labels,
            tie_word_embeddings=bool(tied), **ids,
        )  # fmt: skip
    if kind == "roberta":
        return RobertaConfig(
            vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            max_position_embeddings=130, type_vocab_size=1, num_labels=labels,
            tie_word_embeddings=True if tied is None else tied, **ids,
        )  # fmt: skip
    if kind == "vit":
        return ViTConfig(
            image_size=size, patch_size=2, num_channels=1, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=4, num_labels=labels,
        )  # fmt: skip
    if kind == "resnet":
        return ResNetConfig(
            num_channels=1, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=labels
        )
    raise ValueError(kind)


def tiny_model(
    kind: str,
    head: str | None = None,
    labels: int = 2,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    tied: bool | None = None,
    size: int = 8,
) -> nn.Module:
    """A transformers model in eval mode, every weight random (norms and biases too), requires_grad False.

    kind: opt, llama, roberta, vit, resnet.  head: causal-lm, masked-lm, sequence-classification,
    image-classification (default: HEADS[kind]).  tied: output head tied to the embedding (default: opt, roberta).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CLASSES[kind, head or HEADS[kind]](tiny_config(kind, labels, tied, size))
        for name, parameter in model.named_parameters():
            # Norm weights stay around 1 so that activations neither vanish nor blow up.
            around = 1.0 if parameter.dim() == 1 and name.endswith("weight") else 0.0
            parameter.data = around + 0.2 * torch.randn(parameter.shape)
        for name, buffer in model.named_buffers():
            if "running_mean" in name:
                buffer.copy_(0.1 * torch.randn(buffer.shape))
            if "running_var" in name:
                buffer.copy_(1 + 0.2 * torch.rand(buffer.shape))
        model.tie_weights()
    model.config.use_cache = False
    return model.to(dtype).eval().requires_grad_(False)


@cache
def _tokenizer_json(bos: str | None, eos: str | None) -> str:
    words = sorted({*GOOD, *BAD, *THINGS, *VERBALIZERS, "the", "is", "a", "and", "but", "with"})
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([f"{word} {word}" for word in words] * 3, trainer)
    if bos is not None or eos is not None:
        single = " ".join(part for part in [bos, "$A", eos] if part)
        ids = [(token, tokenizer.token_to_id(token)) for token in {bos, eos} if token is not None]
        pair = f"{single} {' '.join(part for part in [eos, '$B', eos] if part)}"
        tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=ids)
    return tokenizer.to_str()


def tiny_tokenizer(kind: str = "opt", adds_bos: bool = True, pad: bool = True) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer: <s> 0, <pad> 1, </s> 2, <unk> 3, <mask> 4 (roberta only).

    " great", " terrible", " Yes", " Maybe" ... are single tokens; any other text falls apart into bytes or pieces.
    kind: opt (</s> first), llama (<s> first), roberta (<s> text </s>).  adds_bos=False: nothing is added, as in
    some folders of the wild.  pad=False: no pad token, as in GPT-2 and Llama.
    """
    bos = "</s>" if kind == "opt" else "<s>"
    eos = "</s>" if kind == "roberta" else None
    names = {"bos_token": bos, "eos_token": "</s>", "unk_token": "<unk>"}
    if pad:
        names["pad_token"] = "<pad>"
    if kind == "roberta":
        names["mask_token"] = "<mask>"
    raw = Tokenizer.from_str(_tokenizer_json(bos if adds_bos else None, eos))
    return PreTrainedTokenizerFast(tokenizer_object=raw, model_max_length=128, **names)


def save_tiny_folder(
    tmp: Path,
    kind: str,
    head: str | None = None,
    labels: int = 2,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    tied: bool | None = None,
    adds_bos: bool = True,
    pad: bool = True,
    size: int = 8,
) -> Path:
    """A model folder (config.json, model.safetensors, tokenizer files for text kinds) under `tmp`; returns its path."""
    folder = Path(tmp) / f"{kind}-{head or HEADS[kind]}-{seed}"
    tiny_model(kind, head, labels, seed, dtype, tied, size).save_pretrained(folder)
    if kind in ("opt", "llama", "roberta"):
        tiny_tokenizer(kind, adds_bos, pad).save_pretrained(folder)
    return folder


def named(folder: Path, id2label: dict[int, str], **changes: Any) -> Path:
    """The model folder, whose config.json calls its classes so."""
    raw = json.loads((folder / "config.json").read_text())
    raw |= {"id2label": id2label, "label2id": {name: i for i, name in id2label.items()}, **changes}
    (folder / "config.json").write_text(json.dumps(raw))
    return folder


def sentences(count: int, seed: int) -> list[dict[str, Any]]:
    """Rows {"sentence", "label", "idx"}: label 1 if the sentence's judging word is in GOOD, 0 if in BAD."""
    rng = np.random.Generator(np.random.Philox(seed))
    rows = []
    for i in range(count):
        label = int(rng.integers(2))
        word = (GOOD if label else BAD)[rng.integers(len(GOOD))]
        things = [THINGS[k] for k in rng.permutation(len(THINGS))[: 1 + rng.integers(3)]]
        rows.append({"sentence": f"the {' and the '.join(things)} is {word}", "label": label, "idx": i})
    return rows


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def tiny_sst2(tmp: Path, train: int = 64, validation: int = 32, test: int = 32) -> Path:
    """A folder with train.jsonl, validation.jsonl and test.jsonl in the columns of SST-2."""
    folder = Path(tmp) / "sst2"
    for seed, (split, count) in enumerate({"train": train, "validation": validation, "test": test}.items()):
        write_jsonl(folder / f"{split}.jsonl", sentences(count, seed))
    return folder


def tiny_batch(kind: str, rows: int = 4, length: int = 7, seed: int = 0, size: int = 8) -> dict[str, torch.Tensor]:
    """Random model inputs: input_ids and attention_mask int64 [rows, length] (row i is padded by i % 3), or
    pixel_values float32 [rows, 1, size, size]; causal kinds are padded on the left."""
    generator = torch.Generator().manual_seed(seed)
    if kind in ("vit", "resnet"):
        return {"pixel_values": torch.randn(rows, 1, size, size, generator=generator)}
    ids = torch.randint(5, VOCABULARY, (rows, length), generator=generator)
    mask = torch.ones_like(ids)
    for i in range(rows):
        pads = slice(length - i % 3, None) if kind == "roberta" else slice(0, i % 3)
        ids[i, pads], mask[i, pads] = 1, 0
    return {"input_ids": ids, "attention_mask": mask}
