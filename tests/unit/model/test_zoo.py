"""Families of transformers: hpcfed's losses are those of the model's own logits, or the family is refused by name.

So are the answers that a causal model writes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpcfed.config import ModelConfig, load_recipe
from hpcfed.errors import ConfigError
from hpcfed.model import load_model
from hpcfed.model.head import takes
from hpcfed.tasks import Examples, Task
from hpcfed.tasks.images import array_form
from hpcfed.train.problem import build_problem
from hpcfed.train.trial import find_way
from hpcfed.transport.row import Row
from tests.support.written import prompts, read_alone
from tests.support.zoo import zoo_data, zoo_model, zoo_tokenizer

REFUSED = "refused"  # reads padding, mixes examples, or draws at random
_XMOD = {"default_language": "en_XX"}
_LOCAL = {"attention_types": [[["global", "local"], 1]]}


def alike(families: str, own: dict[str, Any] | None = None) -> dict[str, dict[str, Any]]:
    """These families, all with the same settings."""
    return {family: own or {} for family in families.split()}


CAUSAL = {
    **alike(
        """bart bert bert-generation big_bird bigbird_pegasus biogpt blenderbot blenderbot-small bloom camembert codegen
        cohere cohere2 ctrl data2vec-text diffllama electra ernie falcon_mamba gemma gemma2 gemma3_text glm glm4 gpt2
        gpt_neox gpt_neox_japanese gpt_oss gptj granite granitemoe helium jamba jetmoe lfm2 llama mamba marian mbart
        megatron-bert mistral mixtral mpt mvp nemotron olmo olmo2 olmoe openai-gpt opt pegasus persimmon phi phi3 phimoe
        plbart qwen2 qwen3 qwen3_moe recurrent_gemma roberta roformer rwkv smollm3 stablelm starcoder2 trocr xglm
        xlm-roberta"""
    ),
    "falcon": {"head_dim": None},
    "gpt_neo": _LOCAL,
    "mamba2": {"num_heads": 8, "state_size": 16, "n_groups": 1},
    "xlnet": {"max_position_embeddings": None},
    "prophetnet": {
        "num_hidden_layers": None, "num_encoder_layers": 1, "num_decoder_layers": 2, "num_encoder_attention_heads": 4,
        "num_decoder_attention_heads": 4, "is_decoder": True, "verdict": REFUSED,
    },
}  # fmt: skip
MASKED = {
    **alike(
        """albert bart bert big_bird camembert data2vec-text deberta deberta-v2 distilbert electra ernie esm layoutlm
        longformer mbart megatron-bert modernbert mpnet mvp roberta roformer xlm-roberta"""
    ),
    "squeezebert": {"embedding_size": 32},
    **alike("convbert fnet mobilebert nystromformer yoso", {"verdict": REFUSED}),
}
SEQUENCE = {
    **alike(
        """albert bart bert big_bird biogpt bloom camembert ctrl deberta deberta-v2 diffllama distilbert electra ernie
        gemma gemma2 glm gpt2 gpt_neox gpt_oss gptj helium jamba layoutlm llama longformer mbart megatron-bert mistral
        mixtral modernbert mpnet mpt mvp nemotron openai-gpt opt persimmon phi phi3 plbart qwen2 qwen3 roberta roformer
        smollm3 stablelm starcoder2 xlm-roberta"""
    ),
    "falcon": {"head_dim": None},
    "gpt_neo": _LOCAL,
    "squeezebert": {"embedding_size": 32},
    "xmod": _XMOD,
    "t5": {"decoder_start_token_id": 1},
    "xlnet": {"max_position_embeddings": None, "verdict": REFUSED},
    **alike("canine convbert fnet mobilebert nystromformer yoso", {"verdict": REFUSED}),
}
_PATCHES = {"image_size": 32, "patch_size": 8}
_STAGES = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "image_size": 32}
IMAGES = {
    **alike("beit data2vec-vision dinov2 ijepa vit vit_msn", _PATCHES),
    **alike("convnext convnextv2", _STAGES | {"num_hidden_layers": None}),
    "poolformer": _STAGES,
    **alike("regnet resnet", _STAGES | {"embedding_size": 8}),
    **alike("mobilenet_v1 mobilenet_v2", {"image_size": 32, "depth_multiplier": 0.25}),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return zoo_data(tmp_path_factory.mktemp("zoo"))


def own_losses(model: nn.Module, task: Task, kind: str, count: int) -> Tensor:
    """Of the first validation examples, one at a time, by nothing but the model's own forward pass."""
    losses = []
    for i in range(count):
        example = task.splits["validation"][i]
        logits = model(input_ids=torch.from_numpy(example["input_ids"].astype(np.int64))[None]).logits[0]
        if kind == "causal-lm":
            logits = logits[-1, task.head_rows]
        if kind == "masked-lm":
            logits = logits[int(example["mask_position"]), task.head_rows]
        losses.append(F.cross_entropy(logits.float(), torch.tensor(example["label"])))
    return torch.stack(losses)


def table(kind: str, families: dict[str, dict[str, Any]]) -> list[Any]:
    return [pytest.param(kind, family, own, id=f"{kind}-{family}") for family, own in families.items()]


@pytest.mark.parametrize(
    ("kind", "family", "own"),
    [*table("causal-lm", CAUSAL), *table("masked-lm", MASKED), *table("sequence-classification", SEQUENCE)],
)
@torch.inference_mode()
def test_a_text_model_is_right_or_refused(kind, family, own, data, tmp_path):
    settings = {key: value for key, value in own.items() if key != "verdict"}
    model = zoo_model(kind, family, settings)
    model.save_pretrained(tmp_path)
    zoo_tokenizer(kind).save_pretrained(tmp_path)
    end = "." if kind == "masked-lm" else ""
    ask = ["task.form=head"] if kind.startswith("seq") else [f'task.prompt="{{sentence}} It was {{verbalizer}}{end}"']
    where = [f"model.name={tmp_path}", f"task.data={data}", "mesh.threads=1"]
    recipe = load_recipe("sst2-opt-125m", [*where, *ask])
    if own.get("verdict") == REFUSED:
        with pytest.raises(ConfigError, match=rf"a {model.config.model_type} model (does not leave out padding|mixes)"):
            build_problem(recipe)
        return
    problem = build_problem(recipe)
    assert problem.kind == kind
    batch = problem.task.collate([problem.task.splits["validation"][i] for i in range(4)])
    assert not batch.inputs["attention_mask"].all()
    found = problem.task.losses(problem.forward(batch.inputs), batch)
    torch.testing.assert_close(found, own_losses(model, problem.task, kind, 4), atol=2e-5, rtol=1e-4)
    assert (problem.generate is None) == (kind != "causal-lm")
    if problem.generate is not None:
        inputs = {name: x for name, x in prompts(2).items() if takes(model, name)}
        alone = [ids[mask == 1] for ids, mask in zip(inputs["input_ids"], prompts(2)["attention_mask"], strict=True)]
        assert problem.generate(inputs, 3, frozenset()) == [read_alone(model, ids, 3) for ids in alone]


@pytest.mark.parametrize(("family", "own"), IMAGES.items(), ids=IMAGES)
@torch.inference_mode()
def test_an_image_model_is_right(family, own, tmp_path):
    model = zoo_model("image-classification", family, {"num_labels": 3} | own)
    model.save_pretrained(tmp_path)
    labels, pixels = ["a", "b", "c"], np.random.default_rng(0).normal(size=(5, 3, 32, 32)).astype(np.float32)
    examples = Examples({"pixel_values": pixels}, np.arange(5) % 3)
    task = Task("pictures", labels, examples, {"test": examples}, array_form())
    name = str(tmp_path)
    loaded = load_model(ModelConfig(name=name), "image-classification", labels)
    way = find_way(name, loaded, task, [examples[i] for i in range(3)], Row())
    batch = task.collate([examples[i] for i in range(5)])
    own_logits = torch.cat([model(pixel_values=batch.inputs["pixel_values"][i : i + 1]).logits for i in range(5)])
    torch.testing.assert_close(way.forward(batch.inputs), own_logits, atol=2e-5, rtol=1e-4)
