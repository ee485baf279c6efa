"""A run on one row: what takes part in its rounds, and what differs between methods with an orbit and dense ones.

OrbitRun    decisions are bytes: a journal, and in the end an orbit, rebuild the weights
DenseRun    gradients or weights: the weights themselves are saved now and then
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..algorithms import Algorithm, step_size
from ..clients import Attack, Pool
from ..clock import Clock
from ..config import Recipe
from ..errors import RunFolderError
from ..first_order import FirstOrder
from ..messages import Outcome
from ..orbit import Header
from ..privacy import Privacy
from ..probe import Probe
from ..probe.slopes import ClientProbe
from ..runs.folder import RunFolder
from ..runs.record import Record, Trail
from ..transport.base import Transport
from ..transport.mesh import MeshShape
from ..transport.row import Row
from ..weights import Mover, memory
from .problem import Problem
from .replay import replay_on
from .round import State, run_round
from .trail import JournalTrail, WeightsTrail

ELEMENTS = 2**31  # of directions, that are drawn between two looks at whether somebody asks for the end


@dataclass(eq=False, kw_only=True)
class Run(ABC):
    """Everything one row needs to take part in the rounds of a recipe.

    header: what an orbit or saved weights say of the run.  data: digest of the training examples and of who holds
    which.  digests: of what else must stay as it is while the run goes on, by what it is.  clock: where this row's
    time goes.  record: what is put on record; on ranks other than 0 nothing.
    """

    recipe: Recipe
    transport: Transport
    mesh: MeshShape
    problem: Problem
    pool: Pool
    attack: Attack
    privacy: Privacy
    header: Header
    data: str
    digests: Mapping[str, str]
    clock: Clock
    record: Record = field(default_factory=Record)

    @property
    def row(self) -> Row:
        """The ranks that hold this row's model together."""
        return self.transport.row

    @property
    @abstractmethod
    def bits(self) -> tuple[int, int]:
        """What the method needs a client and round, up and down."""

    @property
    @abstractmethod
    def probe_mode(self) -> str | None:
        """How the model is probed, the same on every row; None where it is not."""

    @abstractmethod
    def round(self, t: int, state: State) -> Outcome:
        """Round t on this row. Collective: every rank, once a round."""

    @abstractmethod
    def open_trail(self, folder: RunFolder) -> Trail:
        """Row 0: what a run in this folder goes on from, made anew or found there."""

    def long_enough(self, trail: Trail) -> Trail:
        """The trail; RunFolderError if it has more rounds than the run is to have."""
        if trail.rounds > self.recipe.rounds:
            trail.close()
            raise RunFolderError(
                f"rounds={self.recipe.rounds}: the run has {trail.rounds} rounds behind it already; use as many or more"
            )
        return trail

    @abstractmethod
    def catch_up(self, rounds: int, state: State) -> None:
        """Collective: the weights, and `state.last`, of every row to the end of the `rounds` on row 0's trail.

        Given up, so that `state.caught_up` is false, if any rank is asked to end meanwhile.
        """

    def take_notes(self) -> list[str]:
        """What has come up meanwhile that the user should know."""
        return []


@dataclass(eq=False, kw_only=True)
class OrbitRun(Run):
    """A run whose decisions are an orbit.  method: its functions.  mover: what moves the weights."""

    method: Algorithm
    mover: Mover
    probe: Probe
    clients: ClientProbe

    @property
    def bits(self) -> tuple[int, int]:
        """What the method needs a client and round, up and down."""
        return self.method.uplink_bits, self.method.downlink_bits

    @property
    def probe_mode(self) -> str:
        """In one pass for both sides, or in two."""
        return self.probe.mode

    def round(self, t: int, state: State) -> Outcome:
        """See run_round."""
        return replace(run_round(self, t, state), zeros=self.clients.zeros, slopes=self.clients.found)

    def open_trail(self, folder: RunFolder) -> Trail:
        """The journal; of a private run one that no power failure shortens: a round drawn anew would cost epsilon."""
        return self.long_enough(JournalTrail(folder, self.header, sync=not self.privacy.may_tell))

    def catch_up(self, rounds: int, state: State) -> None:
        """Collective: rounds on record move the weights through the same Mover that trained them."""
        raw, size = self.transport.broadcast(self.record.decisions()), self.header.round_bytes
        decisions = [raw[i : i + size] for i in range(0, len(raw), size)]
        assert len(decisions) == rounds
        state.last = decisions[-1] if decisions else None
        if self.method.cumulative:
            replay_on(self.mover, self.method, decisions)
            return
        at_once = max(1, ELEMENTS // (self.problem.weights.numel * self.method.plan(0, None).seeds.shape[1]))
        for t in range(0, rounds, at_once):
            self.mover.apply([self.method.decode(raw, t + i) for i, raw in enumerate(decisions[t : t + at_once])])
            if t + at_once < rounds and self.transport.any(state.stop):
                state.caught_up = False
                return

    def take_notes(self) -> list[str]:
        """What the probe has found out on the way."""
        return self.probe.take_notes()


@dataclass(eq=False, kw_only=True)
class DenseRun(Run):
    """A run of a method without an orbit."""

    first_order: FirstOrder

    @property
    def bits(self) -> tuple[int, int]:
        """What the method needs a client and round, up and down."""
        return self.first_order.bits

    @property
    def probe_mode(self) -> None:
        """Nothing is probed."""

    def round(self, t: int, state: State) -> Outcome:
        """See FirstOrder.round; then the weights may be saved."""
        outcome = self.first_order.round(t, step_size(self.header.lr, self.header.schedule, t), state.stop)
        self.record.append(t, b"")
        return outcome

    def open_trail(self, folder: RunFolder) -> Trail:
        """The weights file."""
        return self.long_enough(WeightsTrail(folder, self.header, self.problem.weights, self.recipe.save_every))

    def catch_up(self, rounds: int, state: State) -> None:
        """Collective: row 0's weights on every row, tensor by tensor."""
        for p in self.problem.weights.params.values():
            here = p.data.cpu()
            raw = memory(here)
            raw[:] = self.transport.broadcast(raw.tobytes() if self.transport.rank == 0 else None)
            p.data.copy_(here)
