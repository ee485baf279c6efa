"""Slopes are central differences; they do not depend on which groups a row hosts, nor (to rounding) on micro-batches.

A walk leaves no trace; and evaluation is done alike.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hpcfed.clock import Clock
from hpcfed.config import validate
from hpcfed.messages import Slopes, Steps
from hpcfed.probe.slopes import ClientProbe, from_logits, slopes_of
from hpcfed.probe.trial import bound_probe
from hpcfed.tasks.base import Batch
from hpcfed.tasks.evaluate import evaluate
from hpcfed.transport.solo import SoloTransport
from hpcfed.weights import Weights
from tests.support.oracle import LR, build
from tests.support.probes import MU, forward_of, hosted_of, moved
from tests.support.small import tiny_batch, tiny_model

STEPS = Steps(np.array([[5, 6]], np.uint64))


def slopes(problem, groups: range, t: int, **limits) -> Slopes:
    """What the clients of these groups find in round t."""
    recipe = validate({"rounds": 1, "model": {"name": "m"}, "task": {"name": "t"}, "algorithm": {"lr": 1, "mu": MU}})
    first = problem.task.collate([problem.task.train[i] for i in range(3)]).inputs
    probe = bound_probe(first, problem.model, problem.forward, problem.weights, "gaussian")
    return ClientProbe(hosted_of(problem, groups, **limits), probe, recipe, Clock()).slopes(t, STEPS)


def test_groups_give_the_same_bits_on_one_row_and_on_three(problem):
    whole = slopes(problem, range(3), 4)
    assert whole.clients == list(range(6)) and whole.values.shape == (6, 2) and np.isfinite(whole.values).all()
    rows = [slopes(problem, range(g, g + 1), 4) for g in range(3)]
    assert np.array_equal(whole.values, np.concatenate([r.values for r in rows]))
    assert np.array_equal(whole.losses, np.concatenate([r.losses for r in rows]))


@pytest.mark.parametrize("limits", [{"max_batch_examples": 3}, {"max_batch_tokens": 40}, {"max_batch_tokens": 1}])
def test_micro_batches_change_slopes_by_rounding_only(problem, limits):
    whole = slopes(problem, range(3), 4).values
    cut = slopes(problem, range(3), 4, **limits).values
    np.testing.assert_allclose(cut, whole, rtol=1e-2, atol=1e-3)
    clear = np.abs(whole) > 1e-2
    assert clear.any() and np.array_equal(np.sign(cut)[clear], np.sign(whole)[clear])


def test_a_row_without_groups_has_nothing_to_say(problem):
    nothing = slopes(problem, range(0), 0)
    assert nothing.clients == [] and nothing.values.shape == (0, 2) and nothing.losses.shape == (0,)


def test_evaluation_is_the_plain_mean_over_examples(problem):
    task, examples = problem.task, problem.task.splits["validation"]
    score = evaluate(problem.forward, task, examples, 7, SoloTransport())
    right, loss = 0, 0.0
    with torch.inference_mode():
        for i in range(len(examples)):
            batch = task.collate([examples[i]])
            logits = problem.forward(batch.inputs)
            right += int(task.form.scores(logits, batch)[0].argmax() == batch.label[0])
            loss += float(task.losses(logits, batch)[0])
    assert score.value == right / len(examples) and score.examples == len(examples)
    assert score.loss == pytest.approx(loss / len(examples), rel=1e-5)


def cross_entropy(logits: Tensor, batch: Batch) -> Tensor:
    return nn.functional.cross_entropy(logits.float(), batch.label, reduction="none")


def test_slopes_are_central_differences_of_each_clients_mean_loss():
    model, inputs = tiny_model("vit"), tiny_batch("vit", rows=7)
    batch, slot = Batch(inputs, torch.tensor([0, 1, 0, 1, 1, 0, 0])), np.array([0, 0, 1, 1, 1, 2, 2])
    probe = bound_probe(inputs, model, forward_of(model), Weights(model), "gaussian")
    found, level = slopes_of(probe, from_logits(cross_entropy), [(batch, slot)], 3, [4, 9], MU)
    for j, seed in enumerate((4, 9)):
        up, down = (cross_entropy(forward_of(moved(model, seed, mu))(inputs), batch) for mu in (MU, -MU))
        for k in range(3):
            mine = torch.from_numpy(slot == k)
            want = (up[mine].mean() - down[mine].mean()) / (2 * MU)
            assert found[k, j] == pytest.approx(
                float(want), rel=1e-2, abs=1e-3
            )  # a difference of float32 losses / 2 mu
    plain = cross_entropy(forward_of(model)(inputs), batch)
    assert level == pytest.approx(
        [float(plain[torch.from_numpy(slot == k)].mean()) for k in range(3)], rel=0.1, abs=0.01
    )


def test_micro_batches_give_the_same_slopes():
    model, inputs = tiny_model("opt", head="sequence-classification"), tiny_batch("opt", rows=6)
    labels, slot = torch.tensor([0, 1, 0, 1, 1, 0]), np.array([0, 0, 0, 1, 1, 1])
    probe = bound_probe(inputs, model, forward_of(model), Weights(model), "gaussian")
    whole, _ = slopes_of(probe, from_logits(cross_entropy), [(Batch(inputs, labels), slot)], 2, [1], MU)
    cuts = [slice(0, 2), slice(2, 5), slice(5, 6)]
    parts = [(Batch({k: v[c] for k, v in inputs.items()}, labels[c]), slot[c]) for c in cuts]
    cut, _ = slopes_of(probe, from_logits(cross_entropy), parts, 2, [1], MU)
    np.testing.assert_allclose(cut, whole, rtol=1e-2, atol=1e-3)


def test_a_loss_that_is_not_finite_shows_as_a_slope_that_is_not():
    model, inputs = tiny_model("vit"), tiny_batch("vit", rows=4)
    inputs["pixel_values"][3] = torch.nan
    probe = bound_probe(inputs, model, forward_of(model), Weights(model), "gaussian")
    batch = Batch(inputs, torch.tensor([0, 1, 0, 1]))
    found, _ = slopes_of(probe, from_logits(cross_entropy), [(batch, np.array([0, 0, 1, 1]))], 2, [1], MU)
    assert np.isfinite(found[0, 0]) and not np.isfinite(found[1, 0])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("place", ["device", "host"])
def test_a_walk_leaves_no_trace(monkeypatch, dtype: str, place: str):
    algorithm = {"name": "zo-fedavg", "lr": LR, "local_steps": 20, "walk_copy": place}
    run = build(monkeypatch, algorithm, model={"dtype": dtype})
    before = run.problem.weights.fingerprint()
    plan = run.method.plan(0, None)
    found = run.clients.slopes(0, plan)
    assert np.isfinite(found.values).all() and run.problem.weights.fingerprint() == before
    first = run.clients.slopes(0, replace(plan, seeds=plan.seeds[:, :1], walk=plan.walk[:1]))
    assert np.array_equal(first.values[:, 0], found.values[:, 0])
