"""Series of files: all parts or none."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcfed.errors import DataError
from hpcfed.tasks.series import numbered_files, series
from hpcfed.tasks.tree import OnDisk


@pytest.mark.parametrize(
    ("stems", "right"),
    [
        (["train_0", "train_1"], "train_0 train_1"),
        (["train_2", "train_1"], "train_1 train_2"),
        (["train-9", "train-10", *(f"train-{i}" for i in range(1, 9))], " ".join(f"train-{i}" for i in range(1, 11))),
        (["train-00000-of-00001"], "train-00000-of-00001"),
        (["train-1-of-2", "train-2-of-2"], "train-1-of-2 train-2-of-2"),
        (["train.0", "train.1", "trainer_0"], "train.0 train.1"),
        (["train-00000-of-99999999999"], None),
        (["train-0-of-999999999999999999", "train-2-of-999999999999999999"], None),
        (["train_999999999999"], None),
        (["train_0", "train_99999999999"], None),
        (["train-1-of-1", "train-99999999999-of-1"], None),
        (["train-00001-of-00000"], None),
        (["train_0", "train_1", f"train_{'9' * 200}"], "train_0 train_1"),
        (["train_10"], None),
        (["train_0", "train_2"], None),
        (["train-0-of-3", "train-2-of-3"], None),
        (["train-0-of-2", "train-1-of-2", "train-2-of-2"], None),
        (["train_0", "train-0"], None),
        (["train_0", "train_00"], None),
    ],
)
def test_a_series_is_complete_or_refused(stems: list[str], right: str | None):
    nodes = [OnDisk(Path(f"{stem}.jsonl")) for stem in stems]
    if right is None:
        with pytest.raises(DataError, match="train"):
            series(numbered_files(nodes, "train"), "train")
    else:
        there = series(numbered_files(nodes, "train"), "train")
        assert [node.name.removesuffix(".jsonl") for _, node in there.files] == right.split()
