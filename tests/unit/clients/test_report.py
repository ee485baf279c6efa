"""The report of who holds what counts right, and speaks of classes where there are any."""

from __future__ import annotations

import numpy as np
import pytest

from hpcfed.clients import partition_report


def test_the_report_counts_right():
    labels = np.array([0, 0, 1, 1, 1, 2])
    report = partition_report([np.array([0, 2]), np.array([1, 3, 4, 5])], labels, ["a", "b", "c"])
    assert report.counts.tolist() == [[1, 1, 0], [1, 2, 1]] and report.sizes.tolist() == [2, 4]
    assert report.classes == 2.5
    # everybody: (1/3, 1/2, 1/6); client 0: (1/2, 1/2, 0), client 1: (1/4, 1/2, 1/4)
    assert report.skew == pytest.approx((1 / 6 + 1 / 12) / 2)
    assert report.line().startswith("2 clients hold 6 examples, 2 to 4 each (median 3); 2.5 of 3 classes a client")


def test_a_task_without_classes_has_sizes_only():
    report = partition_report([np.array([0, 2]), np.array([1])], np.zeros(3, np.int64), ["examples"])
    assert report.line() == "2 clients hold 3 examples, 1 to 2 each (median 1.5)" and report.skew == 0
