"""A run on one row: what takes part in its rounds, and what differs between methods with an orbit and dense ones.

OrbitRun    decisions are bytes: a journal, and in the end an orbit, rebuild the weights
DenseRun    gradients or weights: the weights themselves are saved now and then
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from ..algorithms import Algorithm, step_size
from ..clients import Attack, Pool
from ..clock import Clock
from ..config import Recipe
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


@dataclass(eq=False, kw_only=True)
class Run(ABC):
    """Everything one row needs to take part in the rounds of a recipe.

    header: what an orbit or saved weights say of the run.  data: digest of the training examples and of who holds
    which.  clock: where this row's time goes.  record: what is put on record; on ranks other than 0 nothing.
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

    @abstractmethod
    def catch_up(self, rounds: int, state: State) -> None:
        """Collective: the weights, and `state.last`, of every row to the end of the `rounds` on row 0's trail."""

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
        return run_round(self, t, state)

    def open_trail(self, folder: RunFolder) -> Trail:
        """The journal; of a private run one that no power failure shortens: a round drawn anew would cost epsilon."""
        return JournalTrail(folder, self.header, sync=not self.privacy.may_tell)  # its noise is drawn once

    def catch_up(self, rounds: int, state: State) -> None:
        """Collective: rounds on record move the weights through the same Mover that trained them."""
        raw, size = self.transport.broadcast(self.record.decisions()), self.header.round_bytes
        decisions = [raw[i : i + size] for i in range(0, len(raw), size)]
        assert len(decisions) == rounds
        state.last = decisions[-1] if decisions else None
        replay_on(self.mover, self.method, decisions)

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
        return WeightsTrail(folder, self.header, self.problem.weights, self.recipe.save_every)

    def catch_up(self, rounds: int, state: State) -> None:
        """Collective: row 0's weights on every row, tensor by tensor."""
        for p in self.problem.weights.params.values():
            here = p.data.cpu()
            raw = memory(here)
            raw[:] = self.transport.broadcast(raw.tobytes() if self.transport.rank == 0 else None)
            p.data.copy_(here)
