"""Models that write answers, prompts for them, and what transformers' own decoding gives."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from tests.support.small import VOCABULARY, tiny_model

WRITERS = ("opt", "llama", "gpt2")


def writer(family: str) -> nn.Module:
    """A tiny causal model with random weights."""
    if family != "gpt2":
        return tiny_model(family)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        config = GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=128, use_cache=False)
        model = GPT2LMHeadModel(config)
        for name, p in model.named_parameters():
            p.data = (1.0 if p.dim() == 1 and name.endswith("weight") else 0.0) + 0.2 * torch.randn(p.shape)
        model.tie_weights()
    return model.eval().requires_grad_(False)


def prompts(rows: int, longest: int = 9) -> dict[str, Tensor]:
    """Random prompts of unequal lengths, padded on the left; int64 [rows, longest] each."""
    generator = torch.Generator().manual_seed(8)
    ids = torch.randint(5, VOCABULARY, (rows, longest), generator=generator)
    padded = torch.arange(rows)[:, None] * 2 % (longest - 1)
    mask = (torch.arange(longest) >= padded).long()
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    return {"input_ids": ids * mask + 1 - mask, "attention_mask": mask, "position_ids": positions}


@torch.inference_mode()
def own_answers(model: nn.Module, inputs: dict[str, Tensor], most: int) -> list[list[int]]:
    """What the model writes by transformers' generate, with no token that ends an answer."""
    written: Tensor = model.generate(  # type: ignore[operator]
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        max_new_tokens=most,
        eos_token_id=None,
        do_sample=False,
        num_beams=1,
        use_cache=True,
    )
    answers: list[list[int]] = written[:, inputs["input_ids"].shape[1] :].tolist()
    return answers


@torch.inference_mode()
def read_alone(model: nn.Module, ids: Tensor, most: int) -> list[int]:
    """What the model writes after one prompt [T], all of which it reads again for every token."""
    for _ in range(most):
        ids = torch.cat([ids, model(ids[None]).logits[0, -1].argmax()[None]])
    answer: list[int] = ids[-most:].tolist()
    return answer
