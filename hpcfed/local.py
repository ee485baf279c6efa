"""What one row computes in a round: the slopes of the clients it hosts, group by group.

A group of clients is padded together and runs together on whichever row hosts it, in micro-batches that the recipe
fixes, because a matrix product's last bits depend on its batch: so slopes do not depend on the number of rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from .clients.pool import Pool
from .config import ClientsConfig
from .probe import Probe, slopes
from .tasks import Batch, Task


class Local:
    """mine: numbers of the groups this row hosts.  limits: max_batch_examples, max_batch_tokens (0: none)."""

    def __init__(self, pool: Pool, task: Task, probe: Probe, mu: float, mine: range, limits: ClientsConfig) -> None:
        self.pool, self.task, self.probe, self.mu, self.mine, self.limits = pool, task, probe, mu, mine, limits

    def slopes(self, t: int, seeds: Sequence[int]) -> tuple[list[int], np.ndarray, np.ndarray]:
        """Hosted clients of round t, their slopes float64 [m, q] along `seeds`, their mean losses float64 [m]."""
        clients: list[int] = []
        found = [(np.empty((0, len(seeds))), np.empty(0))]
        for group, members in self.pool.groups(t).items():
            if group in self.mine:
                clients += members
                batches = list(self._micro_batches(members, t))
                found.append(slopes(self.probe, self.task.losses, batches, len(members), seeds, self.mu))
        return clients, np.concatenate([p for p, _ in found]), np.concatenate([x for _, x in found])

    def _micro_batches(self, members: Sequence[int], t: int) -> Iterator[tuple[Batch, np.ndarray]]:
        """The group's examples, short ones first (so that they are not padded to the length of the longest), cut where
        a limit would be passed: (batch, slot of each example)."""
        batches = [self.pool.batch(client, t) for client in members]
        examples = [self.task.train[int(i)] for i in np.concatenate(batches)]
        tokens = np.array([self.task.tokens(example) for example in examples])
        order = np.argsort(tokens, kind="stable")
        slot = np.repeat(np.arange(len(members)), [len(b) for b in batches])[order]
        start = 0
        for end in (*self._cuts(tokens[order]), len(order)):
            yield self.task.collate([examples[i] for i in order[start:end]]), slot[start:end]
            start = end

    def _cuts(self, tokens: np.ndarray) -> Iterator[int]:
        """Where to cut examples of these lengths (ascending), so that each micro-batch keeps both limits if it can."""
        most_examples, most_tokens, start = self.limits.max_batch_examples, self.limits.max_batch_tokens, 0
        for i in range(1, len(tokens)):
            size = i + 1 - start
            if (most_examples and size > most_examples) or (most_tokens and size * tokens[i] > most_tokens):
                yield i
                start = i
