"""The clients that one row hosts, and their examples as batches.

Examples of clients that are evaluated together are padded together, short ones first, in micro-batches that the recipe
fixes: a batch is a function of the recipe and the round, never of the number of rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..clients import Pool, flipped
from ..config import ClientsConfig
from ..tasks import Batch, Example, Task


class Hosted:
    """pool: who takes part when, on which examples.  groups: numbers of the groups that this row hosts.

    limits: max_batch_examples and max_batch_tokens.  flips: ids of clients that train on wrong labels; ConfigError if
    the task has none.
    """

    def __init__(
        self, pool: Pool, task: Task, groups: range, limits: ClientsConfig, flips: frozenset[int] = frozenset()
    ) -> None:
        self.pool, self.task, self.groups = pool, task, groups
        self._limits, self._flips = limits, flips
        if flips and len(task.train):
            self._wrong(task.train[0])  # found out before the first round

    def members(self, t: int) -> Iterator[tuple[int, Sequence[int]]]:
        """The hosted clients of round t, a group at a time: (place of the first in the cohort, ids)."""
        slot = 0
        for group, members in self.pool.groups(t).items():
            if group in self.groups:
                yield slot, members
            slot += len(members)

    def batches(self, client: int, indices: np.ndarray) -> Iterator[Batch]:
        """These examples of one client, in micro-batches."""
        return (batch for batch, _ in self.micro_batches([client], [indices]))

    def micro_batches(
        self, members: Sequence[int], indices: Sequence[np.ndarray]
    ) -> Iterator[tuple[Batch, np.ndarray]]:
        """Examples `indices` of these clients, cut where a limit would be passed: (batch, int64 [n]: whose each is).

        Short ones come first, so that they are not padded to the length of the longest.
        """
        slot = np.repeat(np.arange(len(members)), [len(b) for b in indices])
        examples = [self.task.train[int(i)] for i in np.concatenate(indices)]
        if self._flips:
            examples = [
                self._wrong(e) if members[int(i)] in self._flips else e for e, i in zip(examples, slot, strict=True)
            ]
        tokens = np.array([self.task.tokens(example) for example in examples])
        order = np.argsort(tokens, kind="stable")
        start = 0
        for end in (*self._cuts(tokens[order]), len(order)):
            yield self.task.collate([examples[i] for i in order[start:end]]), slot[order][start:end]
            start = end

    def _wrong(self, example: Example) -> Example:
        """The example as who flips labels has it: a wrong candidate is right to every loss and every reward."""
        choices = example.get("choices")
        if choices is None:
            return example | {"label": flipped(example["label"], len(self.task.labels))}
        wrong = flipped(example["label"], len(choices), [int(i) for i in example["right"]])
        if wrong == example["label"]:  # all of them are right
            return example
        return example | {"label": wrong, "right": np.array([wrong], np.int32), "references": (choices[wrong],)}

    def _cuts(self, tokens: np.ndarray) -> Iterator[int]:
        """Where to cut examples of these lengths (ascending), so that each micro-batch keeps both limits if it can."""
        most_examples, most_tokens, start = self._limits.max_batch_examples, self._limits.max_batch_tokens, 0
        for i in range(1, len(tokens)):
            size = i + 1 - start
            if (most_examples and size > most_examples) or (most_tokens and size * tokens[i] > most_tokens):
                yield i
                start = i
