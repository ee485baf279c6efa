"""Every setting of a run, its default and its check, written once: pydantic models that forbid unknown keys."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from ..errors import did_you_mean

Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]

WALKERS = ("zo-fedavg", "fedkseed", "fedkseed-pro")  # their clients take local steps
POOLED = ("fedkseed", "fedkseed-pro")
DENSE = ("fedsgd", "fedavg")  # they send gradients or weights: no orbit
ALGORITHM_NAMES = ("feedsign", "zo-fedsgd", "zo-fedavg", "mezo", *POOLED, *DENSE)

MOST_STEPS = 2**24  # slopes of all clients in a round, that an orbit's record may hold

#: How training data are dealt to clients; without meaning where clients.manifest says who holds what.
DEALS = ("beta", "shards_per_client", "id_column")

#: Settings of the algorithm section that only some methods have; elsewhere they must stay at their default.
ONLY_FOR = {
    "ballot": ("feedsign",),
    "directions": ("feedsign", "zo-fedsgd", "mezo"),
    "seeds": ("zo-fedsgd",),
    "tally": ("zo-fedsgd",),
    "trim": ("zo-fedsgd",),
    "local_steps": WALKERS,
    "walk_copy": WALKERS,
    "pool_size": POOLED,
    "history_clip": ("fedkseed-pro",),
    "update": ("feedsign", "zo-fedsgd", "mezo"),
    "optimizer": ("feedsign", "zo-fedsgd", "mezo", "fedavg"),
    "optimizer_options": ("feedsign", "zo-fedsgd", "mezo", "fedavg"),
    "local_epochs": ("fedavg",),
}


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise PydanticCustomError("bool", "true and false are no value for this setting")
        return value


class ModelConfig(_Section):
    """The base model. `name` is a hub name, a local folder, or "digits-vit" (shipped)."""

    name: str
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    revision: str | None = None
    pad_token: str | None = None


class TaskConfig(_Section):
    """Data and how an example becomes a loss. name: picks columns, prompt, labels and metric; data: where it lies."""

    name: str
    data: str | None = None
    form: Literal["auto", "head", "prompt"] = "auto"
    train_split: str | None = None
    eval_splits: list[str] | None = None
    text: list[str] | None = None
    label: str | None = None
    prompt: str | None = None
    verbalizers: list[str] | None = None
    max_length: Positive | None = None
    few_shot: Positive | None = None
    few_shot_seed: int = 0
    train_limit: Positive | None = None
    eval_limit: Positive | None = None


class ClientsConfig(_Section):
    """Who owns the data, who votes in a round, and in which fixed groups clients are evaluated together.

    per_round: a number of clients, or a fraction of them as a float in (0, 1].
    manifest: a file that names the clients, whose data then lie in files of their own (manifest.py has its form); count
    follows from it.
    group: clients evaluated in one forward pass, by client id; rows host whole groups, so the result does not depend
    on the number of rows, and there can be no more rows than groups.
    max_batch_examples, max_batch_tokens: a group larger than this runs in micro-batches (0: no limit).
    slope_noise: every slope is multiplied by 1 + slope_noise N(0, 1), FeedSign's figure 2.
    """

    count: Positive = 5
    per_round: int | float = 1.0
    batch: Positive = 16
    partition: Literal["iid", "dirichlet", "shards", "natural", "quantity", "manifest"] = "iid"
    beta: Annotated[float, Field(gt=0)] = 1.0
    shards_per_client: Positive = 2
    id_column: str | None = None
    manifest: str | None = None
    group: Positive = 1
    max_batch_examples: NotNegative = 0
    max_batch_tokens: NotNegative = 0
    slope_noise: Annotated[float, Field(ge=0, le=100)] = 0.0

    @model_validator(mode="after")
    def _cohort_fits(self) -> ClientsConfig:
        if self.per_round <= 0:
            raise ValueError(f"clients.per_round={self.per_round}: must be a number of clients or a fraction in (0, 1]")
        if isinstance(self.per_round, float) and self.per_round > 1:
            raise ValueError(
                f"clients.per_round={self.per_round}: a fraction must lie in (0, 1]; write a number of clients whole"
            )
        if isinstance(self.per_round, int) and self.per_round > self.count:
            raise ValueError(f"clients.per_round={self.per_round}: there are only clients.count={self.count} clients")
        if self.partition == "natural" and not self.id_column:
            raise ValueError('clients.partition="natural": clients.id_column must name the column that holds the owner')
        return self

    @model_validator(mode="after")
    def _manifest_alone_says_who_holds_what(self) -> ClientsConfig:
        if self.manifest is None:
            if self.partition == "manifest":
                raise ValueError('clients.partition="manifest": clients.manifest must name the file')
            return self
        for setting, right in (("partition", "manifest"), *((s, type(self).model_fields[s].default) for s in DEALS)):
            if (value := getattr(self, setting)) != right:
                raise ValueError(
                    f"clients.{setting}={value!r}: clients.manifest={self.manifest!r} says who holds what; leave "
                    f"clients.{setting} out"
                )
        return self

    @property
    def cohort(self) -> int:
        """Clients that vote in a round."""
        return self.per_round if isinstance(self.per_round, int) else max(1, round(self.per_round * self.count))


class AlgorithmConfig(_Section):
    """The method and its step. lr: step size; mu: perturbation scale; directions: slopes a client finds in a round.

    schedule: constant, linear or cosine, from lr to lr * final over the run's rounds after `warmup` rounds from 0.
    rounding: "auto" is stochastic for 16-bit weights (to nearest, almost no weight would move) and nearest in fp32.
    train_only: patterns of parameter names, e.g. ["classifier.*"]; empty trains all.
    update: "in-place" moves the weights along z; "optimizer" hands z to torch.optim's `optimizer` as a gradient (H.2).

    FeedSign    ballot: "sum" all-reduces integer sums, "bits" gathers one bit a client so that no row can stuff the box
    ZO-FedSGD   seeds: "own" directions for every client (the paper) or "shared"; tally of shared ones: mean, median, or
                trimmed (the fraction `trim` of the slopes is left out at each end)
    walkers     local_steps of ZO-FedAvg (5; "epoch": one pass over the client's data) and FedKSeed (200)
                walk_copy: where the round's weights wait while a client walks ("host": in main memory)
    FedKSeed    pool_size: seeds in the pool; Pro: history_clip bounds the slopes that make probabilities
    FedAvg      local_epochs: passes over its data that a client trains in a round with `optimizer` at step size lr
    """

    name: str = "feedsign"
    lr: Annotated[float, Field(gt=0)]
    mu: Annotated[float, Field(gt=0)] = 1e-3
    directions: Annotated[int, Field(ge=1, le=64)] = 1
    distribution: Literal["gaussian", "rademacher"] = "gaussian"
    rounding: Literal["auto", "stochastic", "nearest"] = "auto"
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup: NotNegative = 0
    final: Annotated[float, Field(ge=0, le=1)] = 0.0
    train_only: list[str] = []
    update: Literal["in-place", "optimizer"] = "in-place"
    optimizer: str = "SGD"
    optimizer_options: dict[str, bool | int | float | str | list[float]] = {}
    ballot: Literal["sum", "bits"] = "sum"
    seeds: Literal["own", "shared"] = "own"
    tally: Literal["mean", "median", "trimmed"] = "mean"
    trim: Annotated[float, Field(gt=0, lt=0.5)] = 0.2
    local_steps: Annotated[int, Field(ge=1, le=100_000)] | Literal["epoch"] | None = None
    walk_copy: Literal["device", "host"] = "device"
    pool_size: Annotated[int, Field(ge=1, le=2**18)] = 1024
    history_clip: Annotated[float, Field(gt=0)] = 1000.0
    local_epochs: Positive = 1

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in ALGORITHM_NAMES:
            raise ValueError(f"algorithm.name={name!r} is unknown{did_you_mean(name, ALGORITHM_NAMES)}")
        return name

    @model_validator(mode="after")
    def _settings_of_the_method(self) -> AlgorithmConfig:
        for setting, names in ONLY_FOR.items():
            value = getattr(self, setting)
            if self.name not in names and value != type(self).model_fields[setting].default:
                raise ValueError(
                    f"algorithm.{setting}={value!r}: {self.name} has no such setting ({', '.join(names)} do)"
                )
        if self.tally != "mean" and self.seeds == "own":
            raise ValueError(
                f"algorithm.tally={self.tally!r}: slopes along different directions have no {self.tally}; "
                'use algorithm.seeds="shared"'
            )
        if self.tally != "trimmed" and self.trim != type(self).model_fields["trim"].default:
            raise ValueError(f'algorithm.trim={self.trim}: only algorithm.tally="trimmed" leaves slopes out')
        if self.name in DENSE and self.rounding == "stochastic":
            raise ValueError(f'algorithm.rounding="stochastic": {self.name} rounds to nearest, as its users would')
        if self.name in POOLED and self.local_steps == "epoch":
            raise ValueError('algorithm.local_steps="epoch": FedKSeed takes a number of local steps')
        first_order = self.name in DENSE
        if (self.optimizer != "SGD" or self.optimizer_options) and self.update == "in-place" and not first_order:
            raise ValueError('algorithm.optimizer: only algorithm.update="optimizer" uses an optimiser')
        return self


class AttackConfig(_Section):
    """Simulated Byzantine clients, FeedSign 4.3.  clients: their ids, how many, or a fraction of all.

    reverse: sends minus its slope.  random: a random slope N(0, scale^2).  label-flip: trains on wrong labels.
    stuff: sends a hundred times what it may.  collude: all attackers send minus their mean slope.
    """

    kind: Literal["none", "reverse", "random", "label-flip", "stuff", "collude"] = "none"
    clients: list[NotNegative] | int | float = 1
    scale: Annotated[float, Field(gt=0, le=1e6)] = 1.0


class PrivacyConfig(_Section):
    """Differential privacy of one client's vote (FeedSign, definition 3).

    mechanism: "central" draws the majority by the exponential mechanism at row 0, the only one that sees the tally;
    "local" flips every vote at its client (randomised response).  epsilon: of one vote.  delta: of the whole run.
    budget: the run ends before its total epsilon exceeds this.
    """

    mechanism: Literal["none", "central", "local"] = "none"
    epsilon: Annotated[float, Field(gt=0, le=50)] | None = None
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    budget: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _complete(self) -> PrivacyConfig:
        if self.mechanism != "none" and self.epsilon is None:
            raise ValueError(f'privacy.mechanism="{self.mechanism}": privacy.epsilon must say how private a vote is')
        if self.mechanism == "none" and (self.epsilon is not None or self.budget is not None):
            raise ValueError('privacy.mechanism="none": choose "central" or "local", or leave epsilon and budget out')
        return self


class MeshConfig(_Section):
    """shards: ranks that hold one copy of the model. threads: CPU threads a rank (0: torch's default).

    device: "auto" is "cuda" where every rank has a GPU of its own, else "cpu".

    check: before the run, compare what the shards compute with the whole model, which shard 0 then loads as well; left
    out where that would take over a quarter of the memory that the host has free.

    graphs: on a GPU, replay the probe's forward passes as CUDA graphs, for models so small that launching kernels takes
    longer than running them; the bits stay the same. Not measured. It helps where batches have the same shape again and
    again (images, or texts of few lengths), and on a CPU it has no effect.
    """

    shards: Annotated[int, Field(ge=1)] = 1
    check: bool = True
    transport: Literal["auto", "torch", "mpi"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: NotNegative = 0
    graphs: bool = False


class Recipe(_Section):
    """A whole run. eval_every, check_every (fingerprints of all rows), log_every: in rounds; 0: only at the end.

    save_every: dense methods, which have no orbit, save their weights every so many rounds.
    """

    rounds: Positive
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    eval_every: NotNegative = 0
    eval_batch: Positive = 64
    check_every: NotNegative = 500
    log_every: Positive = 1
    save_every: Positive = 50
    tensorboard: bool = False
    model: ModelConfig
    task: TaskConfig
    clients: ClientsConfig = ClientsConfig()
    algorithm: AlgorithmConfig
    attack: AttackConfig = AttackConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    mesh: MeshConfig = MeshConfig()

    @model_validator(mode="after")
    def _sections_fit(self) -> Recipe:
        name, attack, count = self.algorithm.name, self.attack, self.clients.count
        if attack.clients != 1:
            _check_attackers(attack.clients, count)  # also where nobody attacks: a typo there is found now
        if attack.kind != "random" and attack.scale != 1.0:
            raise ValueError(f'attack.scale={attack.scale:g}: only attack.kind="random" has a scale')
        if attack.kind != "none" and name == "mezo":
            raise ValueError(f'attack.kind="{attack.kind}": mezo is centralised, it has no clients that could attack')
        if self.clients.slope_noise and name in (*DENSE, "mezo"):
            raise ValueError(f"clients.slope_noise={self.clients.slope_noise:g}: no client of {name} sends a slope")
        if self.mesh.shards > 1 and name in DENSE:
            raise ValueError(
                f"mesh.shards={self.mesh.shards}: {name} needs gradients, which a model spread for inference does not "
                "give; use mesh.shards=1 or a zeroth-order method"
            )
        if self.mesh.graphs and self.mesh.shards > 1:
            raise ValueError(
                f"mesh.graphs=true: with mesh.shards={self.mesh.shards} a forward pass waits for other ranks, which no "
                "graph can replay; use mesh.graphs=false or mesh.shards=1"
            )
        if self.mesh.graphs and name in DENSE:
            raise ValueError(f"mesh.graphs=true: {name} does not probe, so there is nothing to replay; use false")
        cohort, steps = self.clients.cohort, self.algorithm.local_steps
        if self.algorithm.tally == "trimmed" and int(self.algorithm.trim * cohort + 1e-9) < 1:
            raise ValueError(
                f"algorithm.trim={self.algorithm.trim} of {cohort} clients a round leaves nobody out; "
                f"use at least {1 / cohort:.2g}, or more clients"
            )
        if isinstance(steps, int) and cohort * steps > MOST_STEPS:
            raise ValueError(
                f"algorithm.local_steps={steps}: {cohort} clients a round make {cohort * steps:,} slopes of it, where "
                f"a round may have {MOST_STEPS:,}; lower it or clients.per_round"
            )
        if self.privacy.mechanism != "none" and name != "feedsign":
            raise ValueError(f'privacy.mechanism="{self.privacy.mechanism}": only feedsign votes, {name} sends floats')
        if self.privacy.mechanism == "central" and self.algorithm.ballot == "bits":
            raise ValueError('privacy.mechanism="central": algorithm.ballot="bits" would show every vote to all rows')
        if self.clients.manifest is not None:
            _check_files(self.task, name)
        if self.algorithm.update == "optimizer" and self.model.dtype != "float32":
            raise ValueError(
                'algorithm.update="optimizer": an optimiser rounds its steps to nearest, which loses them in '
                f'{self.model.dtype}; use model.dtype="float32" or algorithm.update="in-place"'
            )
        return self

    @property
    def rounding(self) -> str:
        """The rounding rule in force: "stochastic" or "nearest"."""
        if self.algorithm.rounding != "auto":
            return self.algorithm.rounding
        return "nearest" if self.model.dtype == "float32" else "stochastic"


def _check_files(task: TaskConfig, algorithm: str) -> None:
    """What a run with clients.manifest cannot do."""
    if algorithm == "mezo":
        raise ValueError("clients.manifest: mezo is centralised, all its data lie in one place; name them by task.data")
    if task.name == "digits":
        raise ValueError('task.name="digits": its images come with the package; clients.manifest is for data in files')
    for setting in ("train_limit", "few_shot"):
        if (value := getattr(task, setting)) is not None:
            raise ValueError(f"task.{setting}={value}: a client of clients.manifest uses all of its file; leave it out")
    if task.eval_splits == []:
        raise ValueError("task.eval_splits=[]: a run with clients.manifest needs task.data and a split to evaluate")


def _check_attackers(clients: list[int] | int | float, count: int) -> None:
    what = f"attack.clients={clients}"
    if isinstance(clients, list):
        if absent := [client for client in clients if client >= count]:
            raise ValueError(f"{what}: there is no client {absent[0]}; clients.count={count} has ids 0..{count - 1}")
        if not clients or len(set(clients)) < len(clients):
            raise ValueError(f"{what}: name every attacker once, and at least one")
    elif isinstance(clients, float) and not 0 < clients <= 1:
        raise ValueError(f"{what}: a fraction must lie in (0, 1]; write a number of clients whole")
    elif isinstance(clients, int) and not 1 <= clients <= count:
        raise ValueError(f"{what}: must lie in 1..{count} (clients.count)")
