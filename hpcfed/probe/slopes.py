"""What the clients of one row find in a round: the slopes of their losses along random directions.

Formula  p = (L(w + mu z) - L(w - mu z)) / (2 mu)             SPSA, Spall 1992; FeedSign, Definition 1 (eq. 1)
Legend   w: parameters, z: direction, L: mean loss over one client's batch, p: loss per unit of w

Clients that step along the same directions at the round's weights run group by group: a group runs together on
whichever row hosts it (hosted.py has the batches), because a matrix product's last bits depend on its batch. Clients
with directions of their own, or that walk, run one by one. So slopes do not depend on the number of rows.

Promise  a walk leaves no trace: the weights come back bit for bit; tests/unit/probe/test_slopes.py
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..clock import UPDATE, Clock
from ..config import Recipe
from ..messages import Slopes, Steps, Update
from ..tasks import Batch, Task
from ..weights import Copy, apply_
from .decode import decode_sides
from .dual import Probe
from .hosted import Hosted

#: (probe, batch, seed, mu) -> float32 [n] of each side: the losses at w + mu z and at w - mu z.
Sides = Callable[[Probe, Batch, int, float], Sequence[Tensor]]
Measured = tuple[np.ndarray, np.ndarray]  # slopes float64 [m, s], mean losses float64 [m]


class ClientProbe:
    """The clients that this row hosts, and the probe that finds their slopes.

    found, zeros: finite slopes in the last round, and those of them that are exactly 0.
    Memory: if the method walks, one more copy of the trained weights, from the first walk on.
    """

    def __init__(self, hosted: Hosted, probe: Probe, recipe: Recipe, clock: Clock) -> None:
        self._hosted, self._probe, self._clock = hosted, probe, clock
        self._mu, self._rounding = recipe.algorithm.mu, recipe.rounding
        self._sides = from_writing(hosted.task) if hosted.task.decodes else from_logits(hosted.task.losses)
        self.found = self.zeros = 0
        self._copy = Copy(probe.weights, host=recipe.algorithm.walk_copy == "host")

    def slopes(self, t: int, steps: Steps) -> Slopes:
        """What the hosted clients of round t find.

        Collective over the row: its shards evaluate the same losses together, and go on with those of shard 0.
        """
        self.found = self.zeros = 0
        clients: list[int] = []
        parts: list[Measured] = [(np.empty((0, steps.seeds.shape[1])), np.empty(0))]
        if steps.walk is not None:
            with self._clock.during(UPDATE):
                self._copy.take()
        for slot, members in self._hosted.members(t):
            clients += members
            if steps.shared:
                parts.append(self._together(members, t, steps, steps.seeds[0]))
            else:
                parts += [self._alone(client, k, t, steps) for k, client in enumerate(members, slot)]
        return Slopes(clients, np.concatenate([p for p, _ in parts]), np.concatenate([loss for _, loss in parts]))

    def _together(self, members: Sequence[int], t: int, steps: Steps, seeds: np.ndarray) -> Measured:
        """Slopes and losses of clients that step along the same directions at the round's weights."""
        return self._at(members, [self._hosted.pool.batch(client, t) for client in members], seeds.tolist(), steps)

    def _alone(self, client: int, slot: int, t: int, steps: Steps) -> Measured:
        """Slopes and loss of the slot-th client of the cohort, with directions of its own or on a walk of its own."""
        seeds = steps.seeds[slot if len(steps.seeds) > 1 else 0]
        if steps.walk is None:
            return self._together([client], t, steps, seeds)
        return self._walk(client, t, steps, seeds, steps.walk)

    def _walk(self, client: int, t: int, steps: Steps, seeds: np.ndarray, walk: np.ndarray) -> Measured:
        """Slopes [1, s] of a client's local steps, NaN where there was none, and its mean loss [1] on the way."""
        slopes, losses = np.full((1, len(seeds)), np.nan), []
        for j, indices in enumerate(self._hosted.pool.steps(client, t, len(seeds), steps.batches == "epoch")):
            p, loss = self._at([client], [indices], [int(seeds[j])], steps)
            losses.append(loss)
            sent = p[0].astype(np.float32)  # the client moves by what it sends
            if np.isfinite(sent[0]):
                slopes[0, j] = sent[0]
                step = Update(seeds[j : j + 1], sent, float(walk[j]))
                with self._clock.during(UPDATE):
                    apply_(self._probe.weights, [step], self._probe.distribution, self._rounding)
        with self._clock.during(UPDATE):
            self._copy.give_back()
        finite = np.array(losses)[np.isfinite(losses)]
        return slopes, np.array([np.mean(finite) if len(finite) else np.nan])

    def _at(
        self, members: Sequence[int], examples: Sequence[np.ndarray], seeds: Sequence[int], steps: Steps
    ) -> Measured:
        """Slopes and losses of these clients on these examples, where the weights are now."""
        batches = list(self._hosted.micro_batches(members, examples))
        mu = self._mu if steps.mu is None else steps.mu
        p, losses = slopes_of(self._probe, self._sides, batches, len(members), seeds, mu)
        # Shards walk by what they find: a last bit that differs would drive their weights apart.
        both = np.concatenate([p, losses[:, None]], 1)
        self._probe.weights.row.share(both)
        self.found += int(np.isfinite(both[:, :-1]).sum())
        self.zeros += int((both[:, :-1] == 0).sum())
        return both[:, :-1], both[:, -1]


def slopes_of(
    probe: Probe,
    sides: Sides,
    batches: Sequence[tuple[Batch, np.ndarray]],
    clients: int,
    seeds: Sequence[int],
    mu: float,
) -> Measured:
    """Slope of every client's mean loss along every direction, float64 [clients, q]; mean losses, float64 [clients].

    sides: the losses of both sides.  batches: (batch, whose int64 [n]): example i belongs to client whose[i]; a
    client's examples may lie in several batches.  seeds: q directions.
    Not finite where a loss is not. The mean loss is that of both sides and all directions, so L(w) up to O(mu^2).
    """
    rise, level = np.zeros((clients, len(seeds))), np.zeros(clients)
    counts = np.sum([np.bincount(whose, minlength=clients) for _, whose in batches], axis=0)
    queued: list[tuple[np.ndarray, int, Tensor]] = []
    for batch, whose in batches:
        for j, seed in enumerate(seeds):
            queued.append((whose, j, torch.stack(list(sides(probe, batch, seed, mu))).double()))
    for whose, j, both in queued:  # a GPU is waited for here, once, and not before all its work is queued
        plus, minus = both.cpu().numpy()
        rise[:, j] += np.bincount(whose, weights=plus - minus, minlength=clients)
        level += np.bincount(whose, weights=plus + minus, minlength=clients)
    return rise / (2 * mu * counts[:, None]), level / (2 * len(seeds) * counts)


def from_logits(losses: Callable[[Tensor, Batch], Tensor]) -> Sides:
    """Losses of both sides that a model's logits say.  losses: (logits, batch) -> float32 [n]."""
    return lambda probe, batch, seed, mu: [losses(x, batch) for x in probe.logits(batch.inputs, seed, mu, batch.real)]


def from_writing(task: Task) -> Sides:
    """Minus the reward of what the model writes on each side."""
    assert task.decoding
    most, stop, padding = task.decoding.most, task.decoding.stop, task.form.right is not None

    def losses(probe: Probe, batch: Batch, seed: int, mu: float) -> list[Tensor]:
        written = decode_sides(probe, batch.inputs, seed, mu, most, stop, padding)
        return [
            task.unrewarded([task.read(ids, e) for ids, e in zip(side, batch.examples, strict=True)])
            for side in written
        ]

    return losses
