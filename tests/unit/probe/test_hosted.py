"""The clients of one row, and their examples as batches that the recipe fixes."""

from __future__ import annotations

import numpy as np
import pytest

from hpcfed.clients import Pool, flipped
from hpcfed.config import ClientsConfig
from hpcfed.errors import ConfigError
from hpcfed.probe.hosted import Hosted
from tests.support.open_tasks import ROWS, long_llama
from tests.support.probes import hosted_of
from tests.support.small import write_jsonl
from tests.support.tasks import open_task
from tests.support.toy import toy_task


def test_micro_batches_keep_their_limits_and_every_example(problem):
    hosted = hosted_of(problem, range(3), max_batch_tokens=40, max_batch_examples=4)
    parts = list(hosted.micro_batches([0, 1], [hosted.pool.batch(k, 4) for k in (0, 1)]))
    assert len(parts) > 2 and sum(len(slot) for _, slot in parts) == 10
    for batch, slot in parts:
        assert len(slot) <= 4 and (batch.inputs["input_ids"].numel() <= 40 or len(slot) == 1)
    assert sorted(np.concatenate([slot for _, slot in parts])) == [0] * 5 + [1] * 5


@pytest.mark.parametrize("cohort", [6, 4, 1])
def test_rows_share_out_the_cohort_in_whole_groups(cohort):
    pool = Pool(np.array_split(np.arange(60), 6), cohort, 2, 5, run_seed=3)
    for t in range(4):
        rows = [Hosted(pool, toy_task(), groups, ClientsConfig()) for groups in (range(1), range(1, 3), range(0))]
        found = [(slot, list(members)) for hosted in rows for slot, members in hosted.members(t)]
        assert [client for _, members in found for client in members] == pool.cohort(t)
        for slot, members in found:
            assert pool.cohort(t)[slot : slot + len(members)] == members
            assert len({client // 2 for client in members}) == 1


@pytest.mark.parametrize("limits", [{}, {"max_batch_examples": 2}, {"max_batch_tokens": 30}])
def test_short_examples_come_first_and_keep_their_labels(problem, limits):
    hosted, indices = hosted_of(problem, range(3), **limits), [np.array([3, 1, 4]), np.array([11, 15, 19, 12])]
    task, found, lengths = problem.task, [], []
    for batch, slot in hosted.micro_batches([0, 1], indices):
        lengths += batch.inputs["attention_mask"].sum(1).tolist()
        found += list(zip(slot.tolist(), lengths[-len(slot) :], batch.label.tolist(), strict=True))
    assert lengths == sorted(lengths)
    examples = [(k, task.train[int(i)]) for k, part in enumerate(indices) for i in part]
    assert sorted(found) == sorted((k, task.tokens(example), example["label"]) for k, example in examples)


def test_batches_of_one_client_are_its_micro_batches(problem):
    hosted, indices = hosted_of(problem, range(3), max_batch_examples=2), np.array([8, 2, 5])
    found, (batches, _) = list(hosted.batches(4, indices)), zip(*hosted.micro_batches([4], [indices]), strict=True)
    assert [len(batch.label) for batch in found] == [2, 1]
    for ours, theirs in zip(found, batches, strict=True):
        assert all(ours.inputs[name].equal(x) for name, x in theirs.inputs.items())
        assert ours.label.equal(theirs.label)


def test_clients_that_flip_labels_flip_their_own_and_no_others():
    task = toy_task()
    pool, indices = Pool(np.array_split(np.arange(60), 3), 3, 3, 5, run_seed=3), [np.arange(4), np.arange(4, 9), [50]]
    before = task.train.labels.copy()
    hosted = Hosted(pool, task, range(1), ClientsConfig(), flips=frozenset({7, 0}))
    for _ in range(2):  # the data set itself stays
        (both,) = hosted.micro_batches([4, 7, 9], indices)
        batch, slot = both
        wanted = [flipped(y, 3) if k == 1 else y for k, y in zip(slot, before[np.concatenate(indices)], strict=True)]
        assert batch.label.tolist() == wanted and batch.label.tolist() != before[np.concatenate(indices)].tolist()
    assert np.array_equal(task.train.labels, before)


def test_a_wrong_candidate_is_right_to_a_reward_too(tmp_path):
    """Of record's candidates several may be right: none of them is a wrong label."""
    folder, pool = long_llama(tmp_path), Pool([np.arange(2)], 1, 1, 2, run_seed=3)
    data = {"data": str(tmp_path / "train.jsonl"), "eval_splits": ["train"]}
    rows = [
        {"passage": "a", "query": "@placeholder is", "entities": ["plot", "cast", "film"], "answers": ["plot", "cast"]},
        {"passage": "a", "query": "@placeholder is", "entities": ["plot", "cast"], "answers": ["plot", "cast"]},
    ]
    write_jsonl(tmp_path / "train.jsonl", rows)
    task = open_task(folder, name="record", objective="accuracy", **data)
    hosted = Hosted(pool, task, range(1), ClientsConfig(), flips=frozenset({0}))
    (both,) = hosted.micro_batches([0], [np.arange(2)])
    found = sorted((len(e["choices"]), e["label"], e["right"].tolist(), e["references"]) for e in both[0].examples)
    assert found == [(2, 0, [0, 1], ("plot is", "cast is")), (3, 2, [2], ("film is",))]


def test_a_task_without_wrong_labels_is_refused_before_the_first_round(tmp_path):
    write_jsonl(tmp_path / "train.jsonl", ROWS["alpaca"])
    task = open_task(long_llama(tmp_path), name="alpaca", data=str(tmp_path), eval_splits=["train"], max_new_tokens=2)
    with pytest.raises(ConfigError, match=r"label-flip.*1 class"):
        Hosted(Pool([np.arange(2)], 1, 1, 2, 0), task, range(1), ClientsConfig(), flips=frozenset({0}))
