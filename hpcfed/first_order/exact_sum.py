"""Sums of clients' reports that do not depend on who adds them up: fixed point in 64-bit integers.

Formula  T_i = sum_k round(x_ki n_k / n 2**44),  mean_i = T_i / 2**44 * n / n'
Legend   x_k: what client k reports, one number an element of the d trained parameters; n_k: examples behind it; n: sum
         of n_k over the cohort; n': the same over those that did not abstain
Range    |x_ki| <= 2**18 = 262,144, so |T_i| <= 2**62: no sum wraps, whatever the order. Resolution 2**-44 = 5.7e-14.
Promise  a client with a number outside the range, infinite or NaN abstains as a whole; integer sums have no order, so
         T is the same for any number of rows. Memory: 8 bytes an element and two chunks;
         tests/unit/first_order/test_exact_sum.py
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from ..weights import Weights

SCALE = 2.0**44
LIMIT = 2.0**18
CHUNK = 1 << 18  # elements: 2 MiB in float64

#: Elements low to high of a parameter's part of a report: float [high - low] on any device, or None for zeros.
Report = Callable[[str, int, int], Tensor | None]


class Total:
    """The sum of the reports added so far, on this row or (after an exchange of `vector`) on all.

    vector: int64 [d + 3], the elements in the order of `weights.params`, then [examples, abstained, stop].
    """

    def __init__(self, weights: Weights, examples: int, stop: bool) -> None:
        """examples: n, of the whole cohort.  stop: this rank asks to end after this round."""
        self._weights, self._examples = weights, examples
        self.vector = np.zeros(weights.numel + 3, np.int64)
        self.vector[-1] = stop
        self._sums = torch.from_numpy(self.vector)

    @property
    def present(self) -> int:
        """n': examples of the clients that did not abstain."""
        return int(self.vector[-3])

    @property
    def abstained(self) -> int:
        return int(self.vector[-2])

    @property
    def stops(self) -> int:
        return int(self.vector[-1])

    def add(self, report: Report | None, examples: int) -> bool:
        """A client's report, or None if it abstains.  examples: n_k.  Returns whether it counts."""
        if report is None or not self._fits(report):
            self.vector[-2] += 1
            return False
        weight = examples / self._examples * SCALE
        for name, low, high, at in self._chunks():
            part = report(name, low, high)
            if part is not None:
                self._sums[at : at + high - low] += (part.double() * weight).round_().to("cpu", torch.int64)
        self.vector[-3] += examples
        return True

    def _fits(self, report: Report) -> bool:
        """Nothing is added before all of it was seen, so that a client that abstains leaves nothing behind."""
        parts = (report(name, low, high) for name, low, high, _ in self._chunks())
        # NaN <= LIMIT is false. float(): in float16 LIMIT itself would be infinite, and inf <= inf is true.
        return all(part is None or bool((part.float().abs() <= LIMIT).all()) for part in parts)

    def move_(self, factor: float) -> None:
        """w <- w + factor mean: in float32, then to nearest in w's dtype.

        16-bit weights lose a step below half their spacing: the known weakness of first-order training in 16 bits.
        """
        assert self.present > 0
        rate = factor * (self._examples / self.present) / SCALE
        for name, low, high, at in self._chunks():
            w = self._weights.params[name].data.view(-1)[low:high]
            step = (self._sums[at : at + high - low].double() * rate).to(w.device, torch.float32)
            w.copy_(w.float() + step)

    def _chunks(self) -> Iterator[tuple[str, int, int, int]]:
        """(parameter, low, high, index of its element `low` in vector), over all elements."""
        start = 0
        for name, p in self._weights.params.items():
            for low in range(0, p.numel(), CHUNK):
                yield name, low, min(low + CHUNK, p.numel()), start + low
            start += p.numel()
