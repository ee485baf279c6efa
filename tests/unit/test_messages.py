"""Messages: whose directions are shared, and how far an update moves along each, in float32."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hpcfed.messages import Outcome, Steps, Update


@pytest.mark.parametrize(
    ("shape", "walk", "shared"),
    [((1, 3), None, True), ((1, 1), None, True), ((2, 3), None, False), ((1, 3), 3, False), ((2, 3), 3, False)],
)
def test_clients_share_directions_at_the_rounds_weights_only(shape: tuple[int, int], walk: int | None, shared: bool):
    steps = Steps(np.zeros(shape, np.uint64), None if walk is None else np.ones(walk))
    assert steps.shared is shared


@given(
    values=hnp.arrays(np.float32, st.integers(0, 9), elements=st.floats(-1e6, 1e6, width=32)),
    lr=st.floats(1e-9, 1e3),
    divisor=st.integers(1, 10_000),
)
def test_coefficients_are_the_formula_rounded_twice(values: np.ndarray, lr: float, divisor: int):
    """lr / divisor to float32, then each product to float32: what replay must find again bit for bit."""
    found = Update(np.zeros(len(values), np.uint64), values, lr, divisor).coefficients
    step = np.float32(lr / divisor)
    exact = [Fraction(float(step)) * Fraction(float(value)) for value in values]
    assert found.dtype == np.float32 and found.tolist() == [np.float32(float(x)).item() for x in exact]


def test_known_moves():
    seeds = np.array([1, 2, 3], np.uint64)
    signs = Update(seeds, np.array([1, -1, 0], np.float32), 0.5, 4)
    assert signs.coefficients.tolist() == [0.125, -0.125, 0.0] and not signs.whole
    assert Update(seeds, np.array([1, 2, 3], np.float32), 0.5).coefficients.tolist() == [0.5, 1.0, 1.5]
    unknown = Update(seeds[:2], np.array([np.nan, np.inf], np.float32), 1.0).coefficients
    assert np.isnan(unknown[0]) and np.isinf(unknown[1])


def test_an_outcome_tells_no_tally_unless_it_is_given_one():
    outcome = Outcome(0.5)
    assert outcome.sums is None and outcome.cast is None
    assert (outcome.stop, outcome.payload_bytes, outcome.collectives, outcome.abstained) == (0, 0, 0, 0)
    with pytest.raises(AttributeError):
        outcome.loss = 1.0  # type: ignore[misc]
