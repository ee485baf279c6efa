"""A dev split carved off the training data: as many as were asked for, whole groups, the same from the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from hpcfed.errors import ConfigError
from hpcfed.tasks.carve import carve


@pytest.mark.parametrize("dev", [1, 7, 29])
def test_every_row_is_in_one_of_two_and_dev_in_as_many_as_asked(dev: int):
    train, held = carve(None, 30, dev, seed=0)
    assert len(held) == dev and (np.diff(held) > 0).all() and (np.diff(train) > 0).all()
    assert sorted([*train, *held]) == list(range(30))
    again, other = carve(None, 30, dev, seed=0)[1], carve(None, 30, dev, seed=1)[1]
    assert held.tolist() == again.tolist() and held.tolist() != other.tolist()


def test_groups_are_not_divided_and_no_more_are_taken_than_needed():
    groups = np.array([7, 7, 3, 9, 9, 9, 3, 1, 5, 5, 5, 5])
    for seed in range(20):
        train, held = carve(groups, len(groups), 4, seed)
        assert sorted([*train, *held]) == list(range(12)) and not set(groups[train]) & set(groups[held])
        sizes = np.unique(groups[held], return_counts=True)[1]
        assert sizes.sum() >= 4 and (len(sizes) == 1 or sizes.sum() - sizes.max() < 4)


def test_groups_of_one_are_no_groups():
    same = [carve(groups, 30, 7, seed=2)[1].tolist() for groups in (None, np.arange(30))]
    assert same[0] == same[1]


@pytest.mark.parametrize(
    ("groups", "dev", "says"),
    [
        (None, 4, "^task.dev=4: there are only 4 training examples, and some must be left to train on"),
        (None, 9, "^task.dev=9: there are only 4 training examples,"),
        ([0, 0, 0, 0], 1, r"^task.dev=1: .* 4 training examples in 1 groups \(task.group\), which are not divided"),
        ([0, 0, 0, 1], 4, "in 2 groups"),
    ],
)
def test_something_must_be_left_to_train_on(groups: list[int] | None, dev: int, says: str):
    with pytest.raises(ConfigError, match=says):
        carve(None if groups is None else np.array(groups), 4, dev, seed=0)
