"""Which batches get a graph, and what happens where one cannot be: by a stand-in for the device's part.

That a replayed graph has the bits of an eager run is tested in tests/gpu/test_gpu_graphs.py.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hpcfed.probe import graphs
from hpcfed.probe.graphs import Graphs, key_of
from hpcfed.probe.trial import bound_probe
from hpcfed.weights import Weights
from tests.support.small import tiny_batch, tiny_model

MU = 0.01


class Recorded(Graphs):
    """Eager logits are a function of batch and seed; a "graph" computes the same, plus `apart`, or capturing fails."""

    def __init__(self, apart: float = 0.0, fails: bool = False) -> None:
        super().__init__(self.eager, self.eager, list)
        self.apart, self.fails, self.log = apart, fails, list[str]()

    def eager(self, inputs: dict[str, Tensor], seed: int, mu: float, real: Tensor | None) -> tuple[Tensor, Tensor]:
        self.log.append("eager")
        return inputs["x"] + seed, inputs["x"] - seed

    def _capture(self, inputs, seed, mu, real):
        self.log.append("capture")
        if self.fails:
            raise RuntimeError("operation not permitted when stream is capturing\nand more")

        def replay(inputs: dict[str, Tensor], seed: int, real: Tensor | None) -> tuple[Tensor, Tensor]:
            self.log.append("replay")
            return inputs["x"] + seed, inputs["x"] - seed + self.apart

        return replay

    def done(self) -> list[str]:
        log, self.log = self.log, []
        return log


def batch(rows: int) -> dict[str, Tensor]:
    return {"x": torch.arange(rows, dtype=torch.float32)}


def test_the_second_batch_of_a_kind_is_captured_and_the_third_is_replayed():
    runs = Recorded()
    for seed, rows, expected in [
        (1, 2, ["eager"]),
        (2, 3, ["eager"]),
        (3, 2, ["eager", "capture", "replay"]),  # which is compared
        (4, 2, ["replay"]),
        (5, 3, ["eager", "capture", "replay"]),
        (6, 3, ["replay"]),
    ]:
        plus, minus = runs.logits(batch(rows), seed, MU, None)
        assert torch.equal(plus, batch(rows)["x"] + seed) and torch.equal(minus, batch(rows)["x"] - seed)
        assert runs.done() == expected
    assert runs.count == 2 and not runs.notes


def test_a_kind_whose_replay_differs_stays_eager_and_is_not_tried_again():
    runs = Recorded(apart=1e-6)
    for rows in (1, 2):
        for expected in (["eager"], ["eager", "capture", "replay"], ["eager"], ["eager"]):
            runs.logits(batch(rows), 7, MU, None)
            assert runs.done() == expected
    assert runs.count == 0 and len(runs.notes) == 1 and "differ in their last bits" in runs.notes[0]


def test_after_a_capture_that_fails_all_run_eagerly():
    runs = Recorded()
    for _ in range(2):
        runs.logits(batch(1), 7, MU, None)
    runs.fails = True
    for _ in range(2):
        runs.logits(batch(2), 7, MU, None)
    runs.done()
    for rows in (1, 2, 3):
        runs.logits(batch(rows), 7, MU, None)
    assert runs.done() == ["eager"] * 3 and runs.count == 0
    assert runs.notes == [
        "mesh.graphs: no graphs from here on, for capturing one failed (RuntimeError: operation not permitted when "
        "stream is capturing)"
    ]


def test_no_more_graphs_than_so_many(monkeypatch):
    monkeypatch.setattr(graphs, "MOST", 2)
    runs = Recorded()
    for rows in (1, 2, 3):
        for _ in range(3):
            runs.logits(batch(rows), 7, MU, None)
    assert runs.count == 2 and runs.done()[-3:] == ["eager"] * 3


def test_alike_are_batches_of_the_same_shapes_dtypes_mu_and_number_of_real_tokens():
    x, real = {"x": torch.zeros(2, 3)}, torch.arange(4)
    others = [
        key_of({"y": x["x"]}, MU, None),
        key_of({"x": torch.zeros(3, 2)}, MU, None),
        key_of({"x": x["x"].half()}, MU, None),
        key_of(x, 2 * MU, None),
        key_of(x, MU, real),
        key_of(x, MU, real[:3]),
    ]
    keys = {key_of(x, MU, None), *others}
    assert len(keys) == 7 and None not in keys
    assert key_of({"x": torch.ones(2, 3)}, MU, real + 1) == key_of(x, MU, real)


def test_a_batch_whose_mask_transformers_would_leave_out_gets_no_graph():
    padded, full = {"attention_mask": torch.tensor([[0, 1]])}, {"attention_mask": torch.ones(1, 2)}
    assert key_of(padded, MU, None) is not None and key_of(full, MU, None) is None


@pytest.mark.parametrize("seed", [0, 5, 2**63 - 1, 2**63, 2**64 - 1])
def test_a_seed_keeps_its_bits(seed):
    assert torch.tensor([graphs._signed(seed)]).item() % 2**64 == seed


def test_bits_are_compared_and_not_values():
    nan = torch.tensor([[float("nan"), 0.0]])
    assert graphs._same_bits(nan, nan.clone()) and not graphs._same_bits(nan, -nan)
    assert not graphs._same_bits(torch.zeros(1), -torch.zeros(1)) and not graphs._same_bits(nan, nan[0])


def test_on_a_cpu_nothing_is_captured():
    model, inputs = tiny_model("vit"), tiny_batch("vit")
    sides = []
    for on in (False, True):
        probe = bound_probe(inputs, model, lambda i: model(**i).logits, Weights(model), "gaussian", graphs=on)
        sides.append([probe.logits(inputs, seed, MU) for seed in (1, 2, 3)])
    assert probe.mode == "dual" and probe.graphs is not None and probe.graphs.count == 0 and not probe.graphs.notes
    for plain, same in zip(*sides, strict=True):
        assert all(map(torch.equal, plain, same))
