"""What one rank holds, by what it is for: as a sum, as a share of it, and of each method. Real runs: test_plan.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hpcfed.config import validate
from hpcfed.plan.footprint import Memory, footprint, split_bytes
from hpcfed.weights import Weights
from tests.support.plans import planned
from tests.support.small import tiny_model


def test_what_methods_keep(config_only: Path) -> None:
    base = planned(config_only)
    trained = 4 * base.trained
    assert base.memory.kept == base.memory.host == base.memory.update == 0
    adam = planned(config_only, "algorithm.update=optimizer", "algorithm.optimizer=Adam").memory
    assert adam.kept == 2 * trained and adam.update >= trained
    walks = ("algorithm.name=fedkseed", "algorithm.local_steps=2")
    assert planned(config_only, *walks).memory.kept == trained
    aside = planned(config_only, *walks, "algorithm.walk_copy=host")
    assert (aside.memory.kept, aside.memory.host) == (0, trained)
    assert aside.rank_memory(1, gpu=False) - aside.rank_memory(1, gpu=True) == trained
    fedsgd = planned(config_only, "algorithm.name=fedsgd")
    assert fedsgd.memory.host == 2 * trained + 24 and fedsgd.memory.forward > trained and fedsgd.orbit is None
    fedavg = planned(config_only, "algorithm.name=fedavg", "algorithm.optimizer=Adam").memory
    assert fedavg.kept >= 3 * trained and fedavg.host == fedsgd.memory.host
    last = planned(config_only, 'algorithm.train_only=["*.final_layer_norm.*"]')
    assert last.trained < base.trained and last.memory.scratch < base.memory.scratch


def test_what_shards_divide() -> None:
    whole = Memory(weights=100, scratch=1, kept=10, host=20, forward=5, update=3, evaluation=7)
    assert whole.round == 136 and whole.total == 138
    assert whole.shard(80, 4) == Memory(40, 1, 4, 8, 5, 1, 7)


def test_the_parts_add_up():
    whole = Memory(weights=100, scratch=1, kept=10, host=20, forward=5, update=3, evaluation=7)
    assert (whole.always, whole.round, whole.total) == (131, 131 + 5, 131 + 7)
    update = replace(whole, update=50)
    assert update.round == update.total == 131 + 50
    assert whole.shard(80, 1) == whole and whole.shard(79, 4).weights == 21 + 20  # rounded up


def test_shards_divide_the_matrices_in_stacks_of_layers():
    model = tiny_model("opt")
    whole = sum(p.nbytes for name, p in model.named_parameters() if ".layers." in name and p.dim() == 2)
    assert split_bytes(model) == whole == 3 * 4 * (4 * 32 * 32 + 2 * 32 * 64)
    assert split_bytes(model.bfloat16()) == whole / 2
    assert split_bytes(nn.Sequential(nn.LayerNorm(3), nn.Embedding(5, 3))) == 0


class Layers(nn.Module):
    """All of it can be counted by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(10, 30, bias=False), nn.Linear(30, 2, bias=False)
        self.register_buffer("counts", torch.zeros(5, dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


@pytest.mark.parametrize("train_only", [[], ["second.*"]])
def test_by_hand(train_only: list[str]):
    model = Layers().to("meta").requires_grad_(False)
    weights, inputs = Weights(model, train_only), {"x": torch.empty(4, 10, device="meta")}
    evaluated = {"x": torch.empty(50, 10, device="meta")}

    def found(name: str, **settings: Any) -> tuple[Memory, int, int]:
        a = validate(
            {
                "rounds": 1, "model": {"name": "m"}, "task": {"name": "t"}, "clients": {"count": 4, "batch": 4},
                "algorithm": {"name": name, "lr": 1, "train_only": train_only, **settings},
            }
        ).algorithm  # fmt: skip
        return footprint(a, model, weights, lambda i: model(i["x"]), inputs, evaluated)

    trained = 4 * (60 if train_only else 360)
    memory, flops, draws = found("feedsign")
    assert memory.weights == 4 * 360 + 8 * 5 and draws == trained // 4
    rows = 4 if train_only else 8  # of the first layer: doubled only where it must be
    assert flops == 2 * (rows * 10 * 30 + 8 * 30 * 2)
    assert memory.scratch == 2 * (240 if train_only else 1200)  # of the largest layer, both sides
    assert memory.evaluation == 4 * 50 * (30 + 2)
    assert (memory.kept, memory.host, memory.update) == (0, 0, 0)
    walks, _, _ = found("zo-fedavg", local_steps=2)
    assert walks == replace(memory, kept=trained)
    aside, _, _ = found("zo-fedavg", local_steps=2, walk_copy="host")
    assert aside == replace(memory, host=trained)
    dense, flops, draws = found("fedsgd")
    assert (dense.scratch, dense.kept, dense.host, draws) == (0, 0, 2 * trained + 24, 0)
    forward, second = 2 * 4 * (10 * 30 + 30 * 2), 2 * 4 * 30 * 2
    backward = second if train_only else forward + second  # to the weights, and through the second layer
    assert flops == forward + backward
    momentum, _, _ = found("feedsign", update="optimizer", optimizer="SGD", optimizer_options={"momentum": 0.9})
    assert momentum.kept == trained and momentum.update >= trained
    assert all(p.is_meta and p.grad is None and not p.requires_grad for p in model.parameters())
