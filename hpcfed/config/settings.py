"""Every setting of a run, its default and its check, written once; those of the method are in methods.py."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Literal

from pydantic import Field, create_model, field_validator, model_validator

from ..errors import did_you_mean
from .methods import AlgorithmConfig, voting
from .outside import is_outside
from .section import NotNegative, Positive, Section
from .task import TaskConfig

#: How training data are dealt to clients; without meaning where clients.manifest says who holds what.
DEALS = ("beta", "shards_per_client", "id_column", "class_column")
PARTITIONS = ("iid", "dirichlet", "dirichlet-balanced", "shards", "natural", "quantity", "manifest")


class ModelConfig(Section):
    """The base model."""

    name: str
    """A hub name, a local folder, or digits-vit (shipped)."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of its weights."""
    revision: str | None = None
    """Of a model on the hub: a branch, a tag or a commit."""
    pad_token: str | None = None
    """The token to pad with, where the tokenizer has none."""


class ClientsConfig(Section):
    """Who owns the data, who votes in a round, and in which fixed groups clients are evaluated together."""

    count: Positive = 5
    """Clients."""
    per_round: int | float = 1.0
    """Of them, those that take part in a round: a number, or a fraction as a float in (0, 1]."""
    batch: Positive = 16
    """Examples of a client in a round."""
    partition: str = "iid"
    """Who holds what: iid, dirichlet, dirichlet-balanced, shards, natural or quantity (docs/CLIENTS.md), or
    FILE.py:NAME of your own."""
    beta: Annotated[float, Field(gt=0)] = 1.0
    """Of the partitions dirichlet, dirichlet-balanced and quantity: the smaller, the more unlike the clients."""
    shards_per_client: Positive = 2
    """Of the partition shards."""
    id_column: str | None = None
    """Of the partition natural: the column that names an example's owner."""
    class_column: str | None = None
    """Of the partitions that look at classes: the column whose values they are, in place of the label's. Tasks without
    classes need it."""
    manifest: str | None = None
    """A file that names the clients, whose data lie in files of their own (docs/CLIENTS.md); count follows from it."""
    group: Positive = 1
    """Clients evaluated in one forward pass, by client id. Rows host whole groups, so the result does not depend on the
    number of rows, and there can be no more rows than groups."""
    max_batch_examples: NotNegative = 0
    """A group with more examples runs in micro-batches; 0: no limit."""
    max_batch_tokens: NotNegative = 0
    """The same for tokens, padding included."""
    slope_noise: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Every slope is multiplied by 1 + slope_noise N(0, 1) (FeedSign, figure 2)."""

    @field_validator("partition")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in PARTITIONS and not is_outside(name):
            raise ValueError(f"clients.partition={name!r} is unknown{did_you_mean(name, PARTITIONS)}")
        return name

    @field_validator("class_column")
    @classmethod
    def _column(cls, name: str | None) -> str | None:
        if name is not None and not name.strip():
            raise ValueError(f"clients.class_column={name!r}: an empty name names nothing; leave it out for the label")
        return name

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


class AttackConfig(Section):
    """Simulated Byzantine clients (FeedSign, 4.3)."""

    kind: Literal["none", "reverse", "random", "label-flip", "stuff", "collude"] = "none"
    """reverse: sends minus its slope.  random: a random slope.  label-flip: trains on wrong labels.  stuff: sends a
    hundred times what it may.  collude: all attackers send minus their mean slope."""
    clients: list[NotNegative] | int | float = 1
    """Who attacks: ids, a number, or a fraction of all."""
    scale: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    """Of kind random: the slope is N(0, scale^2)."""


class PrivacyConfig(Section):
    """Differential privacy of one client's vote (FeedSign, definition 3)."""

    mechanism: Literal["none", "central", "local"] = "none"
    """central: row 0, the only one that sees the tally, draws the majority by the exponential mechanism.  local: every
    vote is flipped at its client (randomised response)."""
    epsilon: Annotated[float, Field(gt=0, le=50)] | None = None
    """Of one vote."""
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    """Of the whole run: the chance that the total may be exceeded."""
    budget: Annotated[float, Field(gt=0)] | None = None
    """The run ends before its total epsilon exceeds this."""

    @model_validator(mode="after")
    def _complete(self) -> PrivacyConfig:
        if self.mechanism != "none" and self.epsilon is None:
            raise ValueError(f'privacy.mechanism="{self.mechanism}": privacy.epsilon must say how private a vote is')
        if self.mechanism == "none" and (self.epsilon is not None or self.budget is not None):
            raise ValueError('privacy.mechanism="none": choose "central" or "local", or leave epsilon and budget out')
        return self


class MeshConfig(Section):
    """How ranks hold the model, and how they talk."""

    shards: Positive = 1
    """Ranks that hold one copy of the model together."""
    check: bool = True
    """Before the run, compare what the shards compute with the whole model, which shard 0 then loads as well; left out
    where that would take over a quarter of the memory that the host has free."""
    transport: Literal["auto", "torch", "mpi"] = "auto"
    """What carries votes; auto: MPI where the launcher speaks it, else torch.distributed."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: cuda where every rank has a GPU of its own, else cpu."""
    threads: NotNegative = 0
    """CPU threads a rank; 0: torch's default, or a fair share of the node's cores."""
    graphs: bool = False
    """On a GPU, replay the probe's forward passes as CUDA graphs, for models so small that launching kernels takes
    longer than running them; the bits stay the same. Not measured. It helps where batches have the same shape again and
    again (images, or texts of few lengths)."""


class Recipe(Section):
    """A whole run."""

    rounds: Positive
    """Rounds of the run."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Of everything random but the noise of privacy."""
    eval_every: NotNegative = 0
    """Rounds between evaluations; 0: before and after the run only."""
    keep_best: bool = False
    """Of the evaluated rounds, the one of the lowest loss on the split dev is the result, not the last; set task.dev,
    or evaluate a split dev of your own."""
    eval_batch: Positive = 64
    """Examples in a forward pass of an evaluation."""
    check_every: NotNegative = 500
    """Rounds between comparisons of all rows' fingerprints; 0: in the end only."""
    log_every: Positive = 1
    """Rounds between lines of metrics.jsonl."""
    save_every: Positive = 50
    """Rounds between saves of the weights by methods without an orbit."""
    tensorboard: bool = False
    """Also write losses and scores for TensorBoard."""
    model: ModelConfig
    task: TaskConfig
    clients: ClientsConfig = ClientsConfig()
    algorithm: AlgorithmConfig
    attack: AttackConfig = AttackConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    mesh: MeshConfig = MeshConfig()

    @model_validator(mode="after")
    def _sections_fit(self) -> Recipe:
        name, traits, attack = self.algorithm.name, self.algorithm.traits, self.attack
        if attack.clients != 1:
            _check_attackers(attack.clients, self.clients.count)  # also where nobody attacks: a typo there is found now
        if attack.kind != "random" and attack.scale != 1.0:
            raise ValueError(f'attack.scale={attack.scale:g}: only attack.kind="random" has a scale')
        if attack.kind != "none" and traits.central:
            raise ValueError(f'attack.kind="{attack.kind}": {name} is centralised, it has no clients that could attack')
        if self.clients.slope_noise and (traits.dense or traits.central):
            raise ValueError(f"clients.slope_noise={self.clients.slope_noise:g}: no client of {name} sends a slope")
        if self.mesh.shards > 1 and traits.dense:
            raise ValueError(
                f"mesh.shards={self.mesh.shards}: {name} needs gradients, which a model spread for inference does not "
                "give; use mesh.shards=1 or a zeroth-order method"
            )
        if traits.dense and self.task.objective not in ("auto", "candidates", "answer"):
            raise ValueError(
                f"task.objective={self.task.objective!r}: {name} needs gradients, which a metric does not have; use a "
                "zeroth-order method"
            )
        if self.mesh.graphs and self.mesh.shards > 1:
            raise ValueError(
                f"mesh.graphs=true: with mesh.shards={self.mesh.shards} a forward pass waits for other ranks, which no "
                "graph can replay; use mesh.graphs=false or mesh.shards=1"
            )
        if self.mesh.graphs and traits.dense:
            raise ValueError(f"mesh.graphs=true: {name} does not probe, so there is nothing to replay; use false")
        if self.keep_best:
            _check_keeps(self)
        self.algorithm.check_cohort(self.clients.cohort)
        if self.privacy.mechanism != "none" and not traits.votes:
            who = " and ".join(voting())
            raise ValueError(f'privacy.mechanism="{self.privacy.mechanism}": only {who} votes, {name} sends floats')
        if self.privacy.mechanism == "central" and self.algorithm.ballot == "bits":
            raise ValueError('privacy.mechanism="central": algorithm.ballot="bits" would show every vote to all rows')
        if self.clients.manifest is not None:
            _check_files(self)
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


@cache
def recipe_class(algorithm: type[AlgorithmConfig]) -> type[Recipe]:
    """A Recipe whose section [algorithm] is of this class, that of its method."""
    if algorithm is AlgorithmConfig:
        return Recipe
    return create_model("Recipe", __base__=Recipe, __doc__=Recipe.__doc__, algorithm=(algorithm, ...))


def _check_keeps(recipe: Recipe) -> None:
    """What a run with keep_best cannot do."""
    name, mechanism = recipe.algorithm.name, recipe.privacy.mechanism
    if recipe.algorithm.traits.dense:
        raise ValueError(f"keep_best=true: {name} leaves no orbit that a round could be rebuilt from; use false")
    if mechanism != "none":
        raise ValueError(
            f'keep_best=true: which round is best on dev would tell of the data of dev, which privacy.mechanism="'
            f'{mechanism}" gives no account of; use false'
        )
    if not recipe.eval_every:
        raise ValueError(
            "keep_best=true: with eval_every=0 there are the first and the last round only to choose from; "
            "set eval_every to the rounds between evaluations"
        )


def _check_files(recipe: Recipe) -> None:
    """What a run with clients.manifest cannot do."""
    task, algorithm = recipe.task, recipe.algorithm
    if algorithm.traits.central:
        raise ValueError(
            f"clients.manifest: {algorithm.name} is centralised, all its data lie in one place; name them by task.data"
        )
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
