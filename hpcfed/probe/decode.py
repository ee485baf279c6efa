"""Greedy decoding at w + mu z and at w - mu z: what a model writes on both sides, for objectives that read answers.

    plus, minus = decode_sides(probe, inputs, seed, mu, most, stop)      R lists of token ids each

Both sides are read as one batch of 2 R prompts, each half with a cache of its own side: a token of all answers costs
one dual forward. A model that does not take that is decoded twice, once a side: the same answers, up to the rounding of
sums in another order.
Cost     z is drawn anew for every token, so that no copy of the weights is kept: N draws a token of a batch, beside one
         pass over one token a prompt, which multiplies N weights with 2 R columns. Large batches make it little.
Promise  w is never written; tests/unit/probe/test_decode.py
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..model.decode import by_length, decode, make_reader
from ..model.head import Inputs, RowsLinear
from .draws import Pass
from .dual import UNFIT, Probe

Answers = list[list[int]]


@torch.inference_mode()
def decode_sides(
    probe: Probe, inputs: Inputs, seed: int, mu: float, most: int, stop: frozenset[int], padding: bool = True
) -> tuple[Answers, Answers]:
    """What is written with w + mu z and with w - mu z, z = z(seed); arguments and answers as of model/decode.py.

    The probe's forward pass is of the whole head.  Collective over the row.
    """
    assert probe.mode != "unbound", "trial.bind comes first"
    assert not any(isinstance(module, RowsLinear) for module in probe.model.modules()), "bound with a part of the head"
    rows = len(inputs["input_ids"])
    sides: tuple[Answers, Answers] = ([[] for _ in range(rows)], [[] for _ in range(rows)])
    for places, group in [(range(rows), inputs)] if padding else by_length(inputs):
        for answers, found in zip(sides, _both(probe, group, seed, mu, most, stop), strict=True):
            for i, answer in zip(places, found, strict=True):
                answers[i] = answer
    return sides


def _both(
    probe: Probe, inputs: Inputs, seed: int, mu: float, most: int, stop: frozenset[int]
) -> tuple[Answers, Answers]:
    model, row, rows = probe.model, probe.weights.row, len(inputs["input_ids"])
    # An owner with children would run them once a side, and each would put both sides into one cache.
    if probe.mode == "dual" and not any(any(owner.module.children()) for owner in probe.owners):
        twice = {name: torch.cat([x, x]) for name, x in inputs.items()}
        try:
            read = make_reader(model, row, twice, most)
            with _doubled(probe), probe.installed(Pass(seed, mu, rows)):
                both = decode(read, twice, most, stop, row)
            return both[:rows], both[rows:]
        except torch.OutOfMemoryError:  # a RuntimeError, too
            raise
        except UNFIT:  # what the trial, which had no cache, did not see
            pass
    sides = []
    for side in (1, -1):
        read = make_reader(model, row, inputs, most)
        with probe.installed(Pass(seed, mu, rows, side)):
            sides.append(decode(read, inputs, most, stop, row))
    return sides[0], sides[1]


@contextmanager
def _doubled(probe: Probe) -> Iterator[None]:
    """Inside, the batch is doubled from the first module on: the sides write different words."""
    single = [set(owner.single) for owner in probe.owners]
    try:
        for owner in probe.owners:
            owner.single.clear()
        yield
    finally:
        for owner, before in zip(probe.owners, single, strict=True):
            owner.single |= before
