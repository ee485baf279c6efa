"""What can be said of a sharded model without a second rank: who is refused, and which part DeepSpeed's notes mean.

The rest needs ranks: tests/ranks/test_shards.py.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from hpcfed.errors import ConfigError
from hpcfed.model.shards import META, _slice, _without_heads, check_shards
from tests.support.small import tiny_config, tiny_model


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model_type": "gpt2"}, "gets gpt2 models wrong"),
        ({"model_type": "phi3"}, "gets phi3 models wrong"),
        ({"model_type": "persimmon"}, "gets persimmon models wrong"),
        ({"model_type": "falcon", "multi_query": True, "num_kv_heads": 71}, "has 1 key-value head and .*; use 1"),
        ({"model_type": "resnet"}, "has no attention heads to spread"),
        ({"model_type": "llama", "num_key_value_heads": 2, "num_attention_heads": 8}, "has 2 key-value heads"),
        (
            {"model_type": "opt", "num_attention_heads": 2},
            "has 2 attention heads and .*; use 1 to 2",
        ),
    ],
    ids=str,
)
def test_models_that_cannot_be_spread_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=f"mesh.shards=3: .*{words}"):
        check_shards(SimpleNamespace(**settings), 3)
    check_shards(SimpleNamespace(**settings), 1)


def test_models_that_can_be_spread_are_not() -> None:
    check_shards(tiny_config("opt"), 4)
    check_shards(tiny_config("llama"), 2)
    check_shards(tiny_config("roberta"), 3)


def noted(**note: Any) -> nn.Parameter:
    p = nn.Parameter(torch.zeros(1))
    shapes = ("original_shape", "logical_shape")
    none = dict.fromkeys(("partition_dim", "partition_sizes", "sub_param_shard_widths", *shapes))
    setattr(p, META, none | {"replicated": False} | note)
    return p


def test_notes_of_deepspeed() -> None:
    assert _slice("a", nn.Parameter(torch.zeros(3)), 1) is None
    assert _slice("a", noted(replicated=True), 1) is None
    found = _slice("a", noted(partition_dim=1, partition_sizes=[3, 2], original_shape=[4, 5]), 1)
    assert found and (found.shape, found.dim, found.index.tolist()) == ((4, 5), 1, [3, 4])
    fused = noted(partition_dim=0, sub_param_shard_widths=[[2, 2], [1, 1], [1, 1]], logical_shape=[8, 5])
    found = _slice("a", fused, 1)
    assert found and found.index.tolist() == [2, 3, 5, 7]
    with pytest.raises(ConfigError, match="which part of a weight it kept"):
        _slice("a weight", noted(partition_dim=0, original_shape=[8, 5]), 0)


def test_the_head_is_back_after_deepspeed() -> None:
    model = tiny_model("opt")
    names, head = list(dict(model.named_parameters(remove_duplicate=False))), model.lm_head
    with pytest.raises(ZeroDivisionError), _without_heads(model):
        assert not isinstance(model.lm_head, nn.Linear)
        raise ZeroDivisionError
    assert model.lm_head is head and list(dict(model.named_parameters(remove_duplicate=False))) == names
