"""A partition of your own: who holds which training example.

    hpcfed train digits --set clients.partition=examples/my_partition.py:by_parity

Even classes go to the first half of the clients, odd ones to the second.
"""

from __future__ import annotations

import numpy as np

from hpcfed.clients import Deal
from hpcfed.seeds import derive, sample


def by_parity(deal: Deal) -> list[np.ndarray]:
    """[clients] arrays of indices into deal.labels; every example once, nobody empty, the same on every rank."""
    half = max(1, deal.clients // 2)
    parts: list[np.ndarray] = []
    for odd, clients in ((0, half), (1, deal.clients - half)):
        examples = np.flatnonzero(deal.labels % 2 == odd) if deal.clients > 1 else np.arange(len(deal.labels))
        order = sample(derive(deal.seed, "parity", odd), len(examples), len(examples))
        parts += np.array_split(examples[order], clients) if clients else []
    return parts
