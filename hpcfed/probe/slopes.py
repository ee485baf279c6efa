"""What one row computes in a round: the slopes of the clients it hosts.

Clients that step along the same directions at the round's weights run group by group: a group is padded together and
runs together on whichever row hosts it, in micro-batches that the recipe fixes, because a matrix product's last bits
depend on its batch. Clients with directions of their own, or that walk, run one by one. So slopes do not depend on the
number of rows.

Promise  a walk leaves no trace: the weights come back bit for bit; tests/unit/test_local.py
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..clients.attack import flipped
from ..clients.pool import Pool
from ..clock import UPDATE
from ..config import ClientsConfig
from ..messages import Slopes, Update
from ..tasks import Batch, Task
from ..weights.mover import apply_
from ..weights.weights import Copy
from .dual import Probe


class Local:
    """mine: numbers of the groups this row hosts.  limits: max_batch_examples, max_batch_tokens (0: none).

    rounding: of a walk's steps.  copy: where the weights wait meanwhile.  flips: clients that train on wrong labels.
    """

    def __init__(
        self,
        pool: Pool,
        task: Task,
        probe: Probe,
        mu: float,
        mine: range,
        limits: ClientsConfig,
        rounding: str = "nearest",
        copy: Copy | None = None,
        flips: frozenset[int] = frozenset(),
    ) -> None:
        self.pool, self.task, self.probe, self.mu, self.mine, self.limits = pool, task, probe, mu, mine, limits
        self._rounding, self._copy, self._flips = rounding, copy or Copy(probe.weights), flips

    def slopes(self, t: int, seeds: np.ndarray, walk: np.ndarray | None = None, batches: str = "round") -> Slopes:
        """What the hosted clients of round t find along `seeds`, [1, s] or [K, s], as algorithms.Plan says."""
        clients: list[int] = []
        found = [(np.empty((0, seeds.shape[1])), np.empty(0))]
        slot = 0
        if walk is not None:
            with self.probe.clock.during(UPDATE):
                self._copy.take()
        for group, members in self.pool.groups(t).items():
            if group in self.mine:
                clients += members
                if len(seeds) == 1 and walk is None:
                    found.append(self._together(members, t, seeds[0]))
                else:
                    for k, client in enumerate(members, slot):
                        own = seeds[k if len(seeds) > 1 else 0]
                        alone = self._together([client], t, own) if walk is None else None
                        found.append(alone or self._walk(client, t, own, walk, batches == "epoch"))
            slot += len(members)
        return Slopes(clients, np.concatenate([p for p, _ in found]), np.concatenate([x for _, x in found]))

    def _together(self, members: Sequence[int], t: int, seeds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Slopes [m, s] and mean losses [m] of clients that step along the same directions at the round's weights."""
        held = [self.pool.batch(client, t) for client in members]
        batches = list(self._micro_batches(members, held))
        return slopes(self.probe, self.task.losses, batches, len(members), seeds.tolist(), self.mu)

    def _walk(
        self, client: int, t: int, seeds: np.ndarray, walk: np.ndarray | None, epoch: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Slopes [1, s] of a client's local steps, NaN where there was none, and its mean loss [1] on the way."""
        assert walk is not None
        weights, found = self.probe.weights, np.full((1, len(seeds)), np.nan)
        level = []
        for j, indices in enumerate(self.pool.steps(client, t, len(seeds), epoch)):
            batches = list(self._micro_batches([client], [indices]))
            p, loss = slopes(self.probe, self.task.losses, batches, 1, [int(seeds[j])], self.mu)
            level.append(loss)
            sent = p[0].astype(np.float32)  # the client moves by what it sends
            if np.isfinite(sent[0]):
                found[0, j] = sent[0]
                step = Update(seeds[j : j + 1], sent, float(walk[j]))
                with self.probe.clock.during(UPDATE):
                    apply_(weights, [step], self.probe.distribution, self._rounding)
        with self.probe.clock.during(UPDATE):
            self._copy.give_back()
        return found, np.mean(level, axis=0)

    def batches(self, indices: np.ndarray, client: int) -> Iterator[Batch]:
        """These examples of one client, in micro-batches."""
        return (batch for batch, _ in self._micro_batches([client], [indices]))

    def _micro_batches(self, members: Sequence[int], held: Sequence[np.ndarray]) -> Iterator[tuple[Batch, np.ndarray]]:
        """The members' examples, short ones first (so that they are not padded to the length of the longest), cut where
        a limit would be passed: (batch, slot of each example)."""
        slot = np.repeat(np.arange(len(members)), [len(b) for b in held])
        examples = [self.task.train[int(i)] for i in np.concatenate(held)]
        for k in range(len(examples)) if self._flips else ():
            if members[slot[k]] in self._flips:
                examples[k]["label"] = flipped(examples[k]["label"], len(self.task.labels))
        tokens = np.array([self.task.tokens(example) for example in examples])
        order = np.argsort(tokens, kind="stable")
        start = 0
        for end in (*self._cuts(tokens[order]), len(order)):
            yield self.task.collate([examples[i] for i in order[start:end]]), slot[order][start:end]
            start = end

    def _cuts(self, tokens: np.ndarray) -> Iterator[int]:
        """Where to cut examples of these lengths (ascending), so that each micro-batch keeps both limits if it can."""
        most_examples, most_tokens, start = self.limits.max_batch_examples, self.limits.max_batch_tokens, 0
        for i in range(1, len(tokens)):
            size = i + 1 - start
            if (most_examples and size > most_examples) or (most_tokens and size * tokens[i] > most_tokens):
                yield i
                start = i


def slopes(
    probe: Probe,
    losses: Callable[[Tensor, Any], Tensor],
    batches: Sequence[tuple[Any, np.ndarray]],
    clients: int,
    seeds: Sequence[int],
    mu: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Slope of every client's mean loss along every direction, float64 [clients, q]; mean losses, float64 [clients].

    losses: (logits, batch) -> float32 [n], a loss an example.  batches: (batch, slot int64 [n]): example i belongs to
    client slot[i]; a client's examples may lie in several batches.  seeds: q directions.
    Not finite where a loss is not. The mean loss is that of both sides and all directions, so L(w) up to O(mu^2).
    """
    rise, level = np.zeros((clients, len(seeds))), np.zeros(clients)
    counts = np.sum([np.bincount(slot, minlength=clients) for _, slot in batches], axis=0)
    queued: list[tuple[np.ndarray, int, Tensor]] = []
    for batch, slot in batches:
        for j, seed in enumerate(seeds):
            sides = torch.stack([losses(x, batch) for x in probe.logits(batch.inputs, seed, mu, batch.real)])
            queued.append((slot, j, sides.double()))
    for slot, j, sides in queued:  # a GPU is waited for here, once, and not before all its work is queued
        plus, minus = sides.cpu().numpy()
        rise[:, j] += np.bincount(slot, weights=plus - minus, minlength=clients)
        level += np.bincount(slot, weights=plus + minus, minlength=clients)
    found = np.concatenate([rise / (2 * mu * counts[:, None]), level[:, None] / (2 * len(seeds) * counts[:, None])], 1)
    probe.weights.row.share(found)  # shards walk by them: a last bit that differs would drive their weights apart
    return found[:, :-1], found[:, -1]
