"""The methods by name: what the rest of hpcfed must know of one before it runs, and the settings that it has.

A method is a file of its own in algorithms/ (it leaves an orbit) or in first_order/ (it does not); METHODS says where.
Nobody else asks for a method's name: what differs between methods is a trait here, or a function of the method's
record, which `load_method` gets from its file. Nothing heavy is imported before that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from ..errors import ConfigError, did_you_mean
from .outside import is_outside, load_outside
from .section import NotNegative, Positive, Section

MOST_STEPS = 2**24  # slopes of all clients in a round, that an orbit's record may hold
LocalSteps = Annotated[int, Field(ge=1, le=100_000)]

#: Settings of AlgorithmConfig that a method has only if its traits say so; elsewhere they stay at their default.
SHARED = ("ballot", "directions", "update", "optimizer", "optimizer_options", "local_steps", "walk_copy")
IN_PLACE = ("directions", "update", "optimizer", "optimizer_options")  # of methods that step at the round's weights
WALK = ("local_steps", "walk_copy")


class AlgorithmConfig(Section):
    """The method and its step: what methods have in common. A method's own settings are in a class of its own below."""

    name: str = "feedsign"
    """The method, by its name or as FILE.py:NAME, a record of the user's own (CONTRIBUTING.md)."""
    lr: Annotated[float, Field(gt=0)]
    """Step size."""
    mu: Annotated[float, Field(gt=0)] = 1e-3
    """Perturbation scale: losses are evaluated at w + mu z and at w - mu z."""
    distribution: Literal["gaussian", "rademacher"] = "gaussian"
    """Of the elements of a direction z."""
    rounding: Literal["auto", "stochastic", "nearest"] = "auto"
    """Of moved weights to their dtype; auto: stochastic in 16 bits (to nearest, almost no weight would move)."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Of the step size, from lr to lr * final over the run's rounds."""
    warmup: NotNegative = 0
    """Rounds in which the step size first rises from 0."""
    final: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Fraction of lr that a linear or cosine schedule ends with."""
    train_only: list[str] = []  # noqa: RUF012  pydantic copies defaults
    """Patterns of the names of the parameters to train, e.g. ["classifier.*"]; empty: all."""
    directions: Annotated[int, Field(ge=1, le=64)] = 1
    """Slopes that a client finds in a round, each along a direction of its own; each moves the weights by lr / q."""
    update: Literal["in-place", "optimizer"] = "in-place"
    """in-place: w moves along z.  optimizer: z is handed to `optimizer` as a gradient (FeedSign, H.2)."""
    optimizer: str = "SGD"
    """A class of torch.optim."""
    optimizer_options: dict[str, bool | int | float | str | list[float]] = {}  # noqa: RUF012
    """Its options, e.g. {momentum = 0.9}; its step size is lr."""
    ballot: Literal["sum", "bits"] = "sum"
    """sum: integer sums are all-reduced.  bits: one bit a client is gathered, so that no row can stuff the box."""
    local_steps: LocalSteps | Literal["epoch"] | None = None
    """Steps that a client walks in a round; epoch: one pass over its data."""
    walk_copy: Literal["device", "host"] = "device"
    """Where the round's weights wait while a client walks; host: in main memory."""

    @property
    def traits(self) -> Traits:
        """What the method is."""
        return find_traits(self.name)

    def check_cohort(self, cohort: int) -> None:
        """ValueError if so many clients a round do not fit the method's settings."""
        if isinstance(steps := self.local_steps, int) and cohort * steps > MOST_STEPS:
            raise ValueError(
                f"algorithm.local_steps={steps}: {cohort} clients a round make {cohort * steps:,} slopes of it, where "
                f"a round may have {MOST_STEPS:,}; lower it or clients.per_round"
            )

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in METHODS and not is_outside(name):
            raise ValueError(f"algorithm.name={name!r} is unknown{did_you_mean(name, METHODS)}")
        return name

    @model_validator(mode="before")
    @classmethod
    def _settings_of_others(cls, raw: Any) -> Any:
        """One at its default says nothing: a recipe that names the settings of all methods is good for any of them."""
        kept = dict(raw) if isinstance(raw, dict) else {}
        for setting in kept.keys() - cls.model_fields.keys():
            theirs = [traits.settings.model_fields[setting] for traits in METHODS.values() if traits.has(setting)]
            if theirs and kept[setting] != theirs[0].default:
                raise ValueError(
                    _has_no_such(kept.get("name", cls.model_fields["name"].default), setting, kept[setting])
                )
            if theirs:
                del kept[setting]
        return kept if isinstance(raw, dict) else raw

    @model_validator(mode="after")
    def _shared_settings(self) -> AlgorithmConfig:
        for setting in SHARED:
            value = getattr(self, setting)
            if not self.traits.has(setting) and value != AlgorithmConfig.model_fields[setting].default:
                raise ValueError(_has_no_such(self.name, setting, value))
        if self.traits.dense and self.rounding == "stochastic":
            raise ValueError(f'algorithm.rounding="stochastic": {self.name} rounds to nearest, as its users would')
        unused = self.traits.has("update") and self.update == "in-place"
        if unused and (self.optimizer != "SGD" or self.optimizer_options):
            raise ValueError('algorithm.optimizer: only algorithm.update="optimizer" uses an optimiser')
        return self


def _has_no_such(name: str, setting: str, value: Any) -> str:
    having = ", ".join(other for other, traits in METHODS.items() if traits.has(setting))
    return f"algorithm.{setting}={value!r}: {name} has no such setting ({having} do)"


class ZoFedSGDConfig(AlgorithmConfig):
    """ZO-FedSGD."""

    seeds: Literal["own", "shared"] = "own"
    """own: directions of its own for every client (the paper).  shared: one for all, so that only slopes travel."""
    tally: Literal["mean", "median", "trimmed"] = "mean"
    """What shared slopes are tallied to."""
    trim: Annotated[float, Field(gt=0, lt=0.5)] = 0.2
    """tally = "trimmed" leaves out this fraction of the slopes at each end."""

    @model_validator(mode="after")
    def _tally_fits(self) -> ZoFedSGDConfig:
        if self.tally != "mean" and self.seeds == "own":
            raise ValueError(
                f"algorithm.tally={self.tally!r}: slopes along different directions have no {self.tally}; "
                'use algorithm.seeds="shared"'
            )
        if self.tally != "trimmed" and self.trim != type(self).model_fields["trim"].default:
            raise ValueError(f'algorithm.trim={self.trim}: only algorithm.tally="trimmed" leaves slopes out')
        return self

    def check_cohort(self, cohort: int) -> None:
        """Also: somebody must be left out."""
        super().check_cohort(cohort)
        if self.tally == "trimmed" and int(self.trim * cohort + 1e-9) < 1:
            raise ValueError(
                f"algorithm.trim={self.trim} of {cohort} clients a round leaves nobody out; "
                f"use at least {1 / cohort:.2g}, or more clients"
            )


class ZoFedAvgConfig(AlgorithmConfig):
    """ZO-FedAvg."""

    local_steps: LocalSteps | Literal["epoch"] = 5
    """Steps that a client walks in a round; epoch: one pass over its data."""


class FedKSeedConfig(AlgorithmConfig):
    """FedKSeed."""

    local_steps: LocalSteps = 200
    """Steps that a client walks in a round."""
    pool_size: Annotated[int, Field(ge=1, le=2**18)] = 1024
    """Seeds in the pool."""

    @field_validator("local_steps", mode="before")
    @classmethod
    def _a_number(cls, steps: Any) -> Any:
        if steps == "epoch":
            raise ValueError('algorithm.local_steps="epoch": FedKSeed takes a number of local steps')
        return steps


class FedKSeedProConfig(FedKSeedConfig):
    """FedKSeed-Pro."""

    history_clip: Annotated[float, Field(gt=0)] = 1000.0
    """Bounds the slopes that make a seed's probability."""


class FedAvgConfig(AlgorithmConfig):
    """FedAvg."""

    local_epochs: Positive = 1
    """Passes over its data that a client trains in a round, with `optimizer` at step size lr."""


@dataclass(frozen=True)
class Traits:
    """What is known of a method before it runs.

    sends: what a client sends in a round: votes, which are counted; slopes, which are gathered; or weights (gradients
    count as such), as many numbers as the model has: then the method is dense, and leaves no orbit.
    settings: the class of its section [algorithm].  takes: those of SHARED that it has.
    walks: its clients take local steps away from the round's weights.  central: all data lie in one place, and what
    look like clients are slices of one batch.
    record: "MODULE:NAME" of its record; empty for a method of the user's own, whose record has these traits.
    """

    sends: Literal["votes", "slopes", "weights"]
    settings: type[AlgorithmConfig] = AlgorithmConfig
    takes: Sequence[str] = ()
    walks: bool = False
    central: bool = False
    record: str = ""

    @property
    def votes(self) -> bool:
        """Clients send signs."""
        return self.sends == "votes"

    @property
    def dense(self) -> bool:
        """There is no orbit: the weights themselves are saved."""
        return self.sends == "weights"

    def has(self, setting: str) -> bool:
        """Whether `setting`, of SHARED or of some method's own, is one of this method."""
        return setting in self.takes or setting in self.settings.model_fields.keys() - AlgorithmConfig.model_fields


_HERE, _DENSE = "hpcfed.algorithms.", "hpcfed.first_order."
METHODS: dict[str, Traits] = {
    "feedsign": Traits("votes", takes=("ballot", *IN_PLACE), record=_HERE + "feedsign:METHOD"),
    "zo-fedsgd": Traits("slopes", ZoFedSGDConfig, IN_PLACE, record=_HERE + "zo_fedsgd:METHOD"),
    "zo-fedavg": Traits("slopes", ZoFedAvgConfig, WALK, walks=True, record=_HERE + "zo_fedavg:METHOD"),
    "mezo": Traits("slopes", takes=IN_PLACE, central=True, record=_HERE + "mezo:METHOD"),
    "fedkseed": Traits("slopes", FedKSeedConfig, WALK, walks=True, record=_HERE + "fedkseed:METHOD"),
    "fedkseed-pro": Traits("slopes", FedKSeedProConfig, WALK, walks=True, record=_HERE + "fedkseed:PRO"),
    "fedsgd": Traits("weights", record=_DENSE + "fedsgd:METHOD"),
    "fedavg": Traits(
        "weights", FedAvgConfig, ("optimizer", "optimizer_options"), walks=True, record=_DENSE + "fedavg:METHOD"
    ),
}


def find_traits(name: str) -> Traits:
    """Traits of a method by its name in a recipe. ConfigError if the user's own file has no method there."""
    if name in METHODS:
        return METHODS[name]
    record = load_outside("algorithm.name", name)
    if not isinstance(traits := getattr(record, "traits", None), Traits):
        raise ConfigError(f"algorithm.name={name!r}: a {type(record).__name__} is no hpcfed.algorithms.Method")
    return traits


def load_method(name: str) -> Any:
    """The record of a method: algorithms.Method, or first_order.DenseMethod."""
    if name not in METHODS:
        find_traits(name)
        return load_outside("algorithm.name", name)
    module, _, attribute = METHODS[name].record.partition(":")
    return getattr(import_module(module), attribute)


def voting() -> list[str]:
    """Names of the methods whose clients vote."""
    return [name for name, traits in METHODS.items() if traits.votes]
