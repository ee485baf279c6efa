"""What a row computes does not depend on which groups it hosts, nor (to rounding) on micro-batches; evaluation too."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hpcfed.clients import Pool
from hpcfed.clock import Clock
from hpcfed.config import ClientsConfig, Recipe, validate
from hpcfed.messages import Slopes, Steps
from hpcfed.probe.hosted import Hosted
from hpcfed.probe.slopes import ClientProbe
from hpcfed.probe.trial import bound_probe
from hpcfed.tasks.evaluate import evaluate
from hpcfed.train.problem import build_problem
from hpcfed.transport.solo import SoloTransport
from tests.support.small import save_tiny_folder, tiny_sst2

MU, STEPS = 1e-2, Steps(np.array([[5, 6]], np.uint64))


def recipe_of(tmp, **clients) -> Recipe:
    return validate(
        {
            "rounds": 1,
            "model": {"name": str(save_tiny_folder(tmp, "opt"))},
            "task": {"name": "sst2", "data": str(tiny_sst2(tmp))},
            "clients": {"count": 6, "batch": 5, "group": 2} | clients,
            "algorithm": {"lr": 1e-3},
            "mesh": {"threads": 1},
        }
    )


@pytest.fixture(scope="module")
def problem(tmp_path_factory):
    return build_problem(recipe_of(tmp_path_factory.mktemp("local")))


def hosted_of(problem, groups: range, **limits) -> Hosted:
    parts = np.array_split(np.arange(len(problem.task.train)), 6)
    return Hosted(Pool(parts, 6, 2, 5, run_seed=3), problem.task, groups, ClientsConfig(**limits))


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


def test_micro_batches_keep_their_limits_and_every_example(problem):
    hosted = hosted_of(problem, range(3), max_batch_tokens=40, max_batch_examples=4)
    parts = list(hosted.micro_batches([0, 1], [hosted.pool.batch(k, 4) for k in (0, 1)]))
    assert len(parts) > 2 and sum(len(slot) for _, slot in parts) == 10
    for batch, slot in parts:
        assert len(slot) <= 4 and (batch.inputs["input_ids"].numel() <= 40 or len(slot) == 1)
    assert sorted(np.concatenate([slot for _, slot in parts])) == [0] * 5 + [1] * 5


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
