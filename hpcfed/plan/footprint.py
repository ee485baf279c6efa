"""What one rank holds in a round, in bytes, found by running the round's parts on the meta device (meter.py).

    weights      parameters and buffers of the model
    scratch      where the probe perturbs weights, a block at a time, between rounds too
    kept         clients that walk: one more copy of the trained weights.  optimiser: its state
    host         as kept, but in main memory wherever the model is: walk_copy = "host"; of dense methods the exact sum,
                 8 bytes an element
    forward      most that is alive at once in the largest forward pass, both sides; of dense methods with the backward
                 pass and the gradients
    update       optimiser: the gradient, and what its step takes
    evaluation   most that is alive at once in a forward pass of eval_batch examples

Formula  round = weights + scratch + kept + host + max(forward, update)
Promise  the model is as it was, and no weight is read (there are none)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..config import AlgorithmConfig
from ..model.head import Forward, Inputs
from ..probe import Probe
from ..probe.shadow import ShadowDraws, bind_shapes
from ..weights import Weights
from ..weights.optim import make_optimizer
from .meter import Meter


@dataclass(frozen=True)
class Memory:
    """Bytes of one rank, by what they are for: see above."""

    weights: int
    scratch: int
    kept: int
    host: int
    forward: int
    update: int
    evaluation: int

    @property
    def always(self) -> int:
        """What is there in every moment of the run."""
        return self.weights + self.scratch + self.kept + self.host

    @property
    def round(self) -> int:
        """The peak of a round."""
        return self.always + max(self.forward, self.update)

    @property
    def total(self) -> int:
        """The peak of the run."""
        return self.always + max(self.forward, self.update, self.evaluation)

    def shard(self, split: int, shards: int) -> Memory:
        """Of a rank with one of so many shards.  split: bytes of the weights that are divided.

        What goes with the weights shrinks like them; activations count whole, though some are divided too.
        """
        weights = self.weights - split + -(-split // shards)
        part = weights / self.weights
        kept, host, update = (int(n * part) for n in (self.kept, self.host, self.update))
        return Memory(weights, self.scratch, kept, host, self.forward, update, self.evaluation)


def split_bytes(model: nn.Module) -> int:
    """Bytes of the weights that shards divide: matrices in stacks of layers; embeddings and heads are whole on each."""
    return sum(
        module.weight.nbytes
        for path, module in model.named_modules()
        if type(module) is nn.Linear and any(part.isdigit() for part in path.split("."))
    )


def footprint(
    a: AlgorithmConfig,
    model: nn.Module,
    weights: Weights,
    forward: Forward,
    inputs: Inputs,
    evaluated: Inputs,
    device: str = "cpu",
) -> tuple[Memory, int, int]:
    """(bytes, FLOPs of the largest pass, elements of z drawn in it) of a round of method `a` with a model on meta.

    inputs, evaluated: the largest batch of a round and of an evaluation.  device: "cpu" or "cuda", the real one.
    """
    everything = {id(t): t for t in [*model.parameters(), *model.buffers()]}.values()
    meter = Meter([*everything, *inputs.values(), *evaluated.values()])
    copy = sum(p.nbytes for p in weights.params.values())
    scratch = kept = host = update = draws = 0
    traits, trains = a.traits, a.traits.dense and a.traits.walks
    if traits.dense:
        host = 8 * (weights.numel + 3)
        activations = _peak(meter, lambda: _backward(weights, forward, inputs))
    else:
        drawer = ShadowDraws(a.distribution, device)
        probe = Probe(model, forward, weights, a.distribution, draws=drawer)
        with meter.measuring():
            bind_shapes(probe, inputs)
        drawer.drawn = 0
        most = meter.live + _peak(meter, lambda: probe.logits(inputs, 0, a.mu))
        scratch, draws = meter.live, drawer.drawn
        activations = most - scratch
    flops = meter.flops
    evaluation = _peak(meter, lambda: forward(evaluated))
    if a.update == "optimizer" or trains:
        kept, update = _optimizer(meter, weights, a)
    if traits.walks and a.walk_copy == "device":
        kept += copy
    elif traits.walks:
        host += copy
    model_bytes = sum(t.nbytes for t in everything)
    return Memory(model_bytes, scratch, kept, host, activations, update, evaluation), flops, draws


@torch.inference_mode()
def _peak(meter: Meter, run: Callable[[], Any]) -> int:
    """Bytes alive at the most while `run` runs, above what was alive before."""
    before = meter.live
    with meter.measuring():
        run()
    return meter.peak - before


def _backward(weights: Weights, forward: Forward, inputs: Inputs) -> None:
    with torch.inference_mode(False), torch.enable_grad():
        for p in weights.params.values():
            p.requires_grad_(True)
        forward(inputs).float().sum().backward()
    for p in weights.params.values():
        p.grad = None
        p.requires_grad_(False)


def _optimizer(meter: Meter, weights: Weights, a: AlgorithmConfig) -> tuple[int, int]:
    """(bytes of torch.optim's state, bytes above it in a step: the gradient and what the step takes)."""
    before = meter.live
    params = [nn.Parameter(p.detach()) for p in weights.params.values()]
    with meter.measuring():
        for p in params:
            p.grad = torch.zeros_like(p)
        optimizer = make_optimizer(a.optimizer, params, 1.0, a.optimizer_options)
        optimizer.step()
        peak = meter.peak
        optimizer.zero_grad(set_to_none=True)
    state = meter.live - before
    return state, peak - before - state
