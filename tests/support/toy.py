"""A whole run on a model of 21 weights: softmax regression on points whose class is their largest coordinate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hpcfed.config import validate
from hpcfed.noise import spec
from hpcfed.runs.folder import RunFolder
from hpcfed.runs.record import Callback, FolderRecord
from hpcfed.tasks import Batch, Examples, Form, Task
from hpcfed.train import build
from hpcfed.train.build import build_run
from hpcfed.train.problem import Problem
from hpcfed.train.run import OrbitRun
from hpcfed.transport.solo import SoloTransport
from hpcfed.weights import Weights

ROUNDS, CLIENTS, FEATURES, CLASSES = 40, 5, 6, 3


class Logits:
    def __init__(self, logits: torch.Tensor) -> None:
        self.logits = logits


class Line(nn.Module):
    """Softmax regression, the way transformers' models are called."""

    def __init__(self) -> None:
        super().__init__()
        z = spec.z(5, 5, np.arange((FEATURES + 1) * CLASSES, dtype=np.uint64), "gaussian")
        self.dense = nn.Linear(FEATURES, CLASSES)
        self.dense.weight.data = torch.from_numpy(z[CLASSES:].reshape(CLASSES, FEATURES).copy())
        self.dense.bias.data = torch.from_numpy(z[:CLASSES].copy())

    def forward(self, x: torch.Tensor) -> Logits:
        return Logits(self.dense(x))


def collate(examples: list[dict]) -> Batch:
    x = torch.from_numpy(np.stack([example["x"] for example in examples]))
    return Batch({"x": x}, torch.tensor([example["label"] for example in examples]))


def toy_task(examples: int = 60) -> Task:
    x = spec.z(9, 9, np.arange(examples * FEATURES, dtype=np.uint64), "gaussian").reshape(examples, FEATURES)
    held = Examples({"x": x}, (x[:, :CLASSES].argmax(1)).astype(np.int64))
    return Task(
        "toy", ["a", "b", "c"], held, {"test": held}, Form(collate, lambda logits, _: logits.float(), lambda _: 1)
    )


def toy_run(monkeypatch: pytest.MonkeyPatch, sections: dict | None = None, **top: object) -> OrbitRun:
    """A whole Run on a model of 21 weights, built by build_run from a recipe."""
    raw: dict = {"rounds": ROUNDS, "model": {"name": "toy"}, "task": {"name": "toy"}, **top}
    raw |= {"clients": {"count": CLIENTS, "batch": 8}, "algorithm": {"lr": 0.05, "mu": 0.01}}
    for section, values in (sections or {}).items():
        raw[section] = raw[section] | values
    recipe = validate(raw)
    model = Line().to(getattr(torch, recipe.model.dtype)).eval().requires_grad_(False)
    weights, dtype = Weights(model, recipe.algorithm.train_only), getattr(torch, recipe.model.dtype)
    problem = Problem(
        model, None, toy_task(), weights, lambda inputs: model(inputs["x"].to(dtype)).logits, "image-classification"
    )
    monkeypatch.setattr(build, "build_problem", lambda recipe, row: problem)
    return build_run(recipe, SoloTransport())


def recorded(
    run: OrbitRun, path: Path, resume: bool = False, force: bool = False, on_round: Callback | None = None
) -> OrbitRun:
    """The run, which goes on record in a folder."""
    run.record = FolderRecord(RunFolder.create(path, "rounds = 1\n", {}, force, resume), True, on_round)
    return run


class Heard(SoloTransport):
    """A row that puts on `air` what it says, or hears what is there."""

    def __init__(self, air: list[bytes], rank: int = 0) -> None:
        super().__init__()
        self.air, self.rank = air, rank

    def broadcast(self, data: bytes | None, root: int = 0) -> bytes:
        if data is None:
            return self.air.pop(0)
        self.air.append(data)
        return data
