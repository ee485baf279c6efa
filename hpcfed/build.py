"""From a recipe to a run: the only file that knows every concrete class."""

from __future__ import annotations

import hashlib
import inspect
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .algorithms import Algorithm, make_algorithm
from .clients import Attack, CentralPool, Pool, partition
from .clients.hosted import HostedPool, hosted_pool
from .clock import Clock
from .config import DENSE, POOLED, AlgorithmConfig, Entry, Manifest, ModelConfig, Recipe, read_manifest
from .dense import FirstOrder
from .errors import ConfigError, first_line
from .head import restrict_head
from .heap import keep_freed_memory
from .local import Local
from .mesh import MeshShape
from .model import load_model, load_processor, load_shard, model_kind, without_sums
from .noise import set_threads
from .orbit import Header, public_name
from .probe import Forward, Probe
from .replay import make_mover
from .seeds import derive
from .tasks import Examples, Task, kind_of, load_task
from .tasks.sources import Gathered
from .transport import Row, Transport
from .transport.base import check_same, together
from .update import Mover
from .weights import Copy, Weights

#: How far a sharded model's logits may be from the whole model's, in units of their spread: sums are rounded in another
#: order. A sum over the wrong ranks is 0.7 or more apart.
LOGITS_APART = {"float32": 1e-3, "bfloat16": 0.1, "float16": 0.02}


@dataclass(eq=False)
class Problem:
    """A model and a task that fit each other, with the trained weights addressed. processor: tokenizer or None.

    notes: what the user should know of it.
    """

    model: nn.Module
    processor: Any
    task: Task
    weights: Weights
    forward: Forward
    kind: str
    notes: list[str] = field(default_factory=list)


@dataclass(eq=False)
class Run:
    """Everything one row needs to take part in the rounds of a recipe.

    algorithm, mover: of a method with an orbit.  dense: the rounds of one without.
    """

    recipe: Recipe
    transport: Transport
    mesh: MeshShape
    problem: Problem
    pool: Pool
    local: Local
    attack: Attack
    header: Header
    data: str  # digest of the training examples and of who holds which
    algorithm: Algorithm | None
    mover: Mover | None
    dense: FirstOrder | None

    @property
    def clock(self) -> Clock:
        """Where this row's time goes."""
        return self.local.probe.clock

    @property
    def bits(self) -> tuple[int, int]:
        """What the method needs a client and round, up and down."""
        method = self.algorithm or self.dense
        assert method
        return method.uplink_bits, method.downlink_bits


def build_problem(recipe: Recipe, row: Row | None = None, hosted: Sequence[Entry] = ()) -> Problem:
    """Load data and model of a recipe; the head is restricted to the words the task scores.

    Collective over the row, whose ranks each load a part of the model.
    hosted: clients of a recipe with clients.manifest whose examples are wanted, too.
    """
    row = row or Row()
    if recipe.mesh.threads:
        torch.set_num_threads(recipe.mesh.threads)
    set_threads(torch.get_num_threads())

    def data() -> tuple[str, Any, Task]:
        kind = kind_of(recipe.task, model_kind(recipe.model))
        processor = load_processor(recipe.model, kind)
        sources = None if recipe.clients.manifest is None else hosted
        return kind, processor, load_task(recipe.task, kind, processor, recipe.clients.id_column, sources)

    kind, processor, task = row.together(data)
    task = replace(task, device=row.device)
    model, slices = load_shard(recipe.model, kind, task.labels, row)
    weights = Weights(model, recipe.algorithm.train_only, slices, row)
    problem = Problem(model, processor, task, weights, make_forward(model, task, row), kind)
    if row.shards > 1 and recipe.mesh.check:
        problem.notes += check_shards(recipe, problem)
    return problem


@torch.inference_mode()
def check_shards(recipe: Recipe, problem: Problem) -> list[str]:
    """Collective over the row: its shards hold, and compute, what the whole model does, which shard 0 loads for this.

    The same weights by fingerprint; the same logits on some examples, up to the rounding of sums in another order.
    Returns a note on shard 0 if the whole model is too large for that.  Raises ConfigError on every shard alike.
    """
    row, task = problem.weights.row, problem.task
    inputs = _few(recipe, task)

    def compute() -> None:
        """If it fails, it does on each shard by itself, so that none waits for another's sums."""
        try:
            with without_sums():
                problem.forward(inputs)
        except Exception as e:  # whatever a model raises whose parts do not fit each other
            raise ConfigError(_unfit(row, f"cannot compute ({type(e).__name__}: {first_line(e)})")) from None

    row.together(compute)
    found, fingerprint = problem.forward(inputs).double(), problem.weights.fingerprint()
    affordable = _affordable(problem.weights, problem.model, row.beside)

    def compare() -> str:
        if row.shard or not affordable:
            return ""
        whole = load_model(recipe.model, problem.kind, task.labels).to(row.device)
        if Weights(whole, recipe.algorithm.train_only).fingerprint() != fingerprint:
            return "hold other weights than the whole model"
        expected = make_forward(whole, task, Row())(inputs).double()
        spread, apart = (expected - expected.mean()).norm(), (found - expected).norm()
        most = LOGITS_APART[recipe.model.dtype]
        if bool(apart <= most * spread):
            return ""
        return (
            f"compute logits that are {float(apart / spread):.2g} x their spread from the whole model's (over {most:g})"
        )

    said = row.together(compare)
    if wrong := row.gather(said.encode())[0].decode():
        raise ConfigError(_unfit(row, wrong))
    return [] if affordable else ["mesh.check left out: the whole model takes over a quarter of the free memory"]


def _unfit(row: Row, wrong: str) -> str:
    return (
        f"mesh.shards={row.shards}: the shards {wrong}; DeepSpeed's tensor parallelism does not fit this model: use "
        "mesh.shards=1 (mesh.check=false leaves this check out)"
    )


def _affordable(weights: Weights, model: nn.Module, copies: int) -> bool:
    """Whether whole models take at most a quarter of the memory that this host has free, as far as it says."""
    info = Path("/proc/meminfo")
    free = re.search(r"MemAvailable: *(\d+) kB", info.read_text()) if info.exists() else None
    held = {name: p.numel() for name, p in model.named_parameters()}
    held |= {name: math.prod(part.shape) for name, part in weights.slices.items()}
    size = sum(held.values()) * next(model.parameters()).element_size()
    return free is None or 4 * copies * size <= 1024 * int(free[1])


def _few(recipe: Recipe, task: Task) -> dict[str, Tensor]:
    """Three examples that every row has, not the clients' where each has a file of its own; a short and a long one."""
    same = task.train if recipe.clients.manifest is None else next(iter(task.splits.values()))
    first = sorted((same[i] for i in range(min(64, len(same)))), key=task.tokens)
    return task.collate([first[0], first[len(first) // 2], first[-1]]).inputs


def build_base(
    header: Header, name: str, revision: str | None, pad_token: str | None, row: Row | None = None
) -> tuple[nn.Module, Weights]:
    """The base model of an orbit, loaded from `name` as the run loaded it, and its weights. Collective over the row."""
    row = row or Row()
    config = ModelConfig(name=name, dtype=header.dtype, revision=revision, pad_token=pad_token)  # type: ignore[arg-type]
    model, slices = load_shard(config, header.kind, header.labels, row)
    return model, Weights(model, header.train_only, slices, row)


def build_run(recipe: Recipe, transport: Transport) -> Run:
    """The run of `recipe` on this row. Raises ConfigError or DataError; nothing has been written yet.

    Collective with clients.manifest, where a row loads the data of the clients it hosts and no others.
    """
    c, shards = recipe.clients, transport.inside.shards
    assert recipe.mesh.shards == shards, "the ranks are spread as the recipe says"
    mesh = MeshShape(transport.rows, shards)
    mesh.check_groups(-(-c.count // c.group))
    if c.manifest is None:
        problem = build_problem(recipe, transport.inside)
        pool = build_pool(recipe, problem.task.train)
    else:
        problem, pool = build_hosted(recipe, c.manifest, transport, mesh)
    mesh.check_groups(pool.n_groups)  # of slices, where there are fewer than clients
    return assemble(recipe, transport, mesh, problem, pool)


def build_hosted(recipe: Recipe, name: str, transport: Transport, mesh: MeshShape) -> tuple[Problem, Pool]:
    """Collective: what this row holds of the clients of manifest `name`, and what all rows know of all of them."""
    c = recipe.clients
    groups = mesh.groups_of_row(transport.row, -(-c.count // c.group))
    mine = range(groups.start * c.group, min(groups.stop * c.group, c.count))

    def read() -> Manifest:
        manifest = read_manifest(name)
        if (n := len(manifest.clients)) != c.count:
            raise ConfigError(f"clients.count={c.count}: clients.manifest={name!r} has {n}; leave clients.count out")
        return manifest

    def load() -> tuple[Manifest, Problem]:
        manifest = transport.inside.together(read)
        return manifest, build_problem(recipe, transport.inside, manifest.clients[mine.start : mine.stop])

    manifest, problem = together(transport, load)
    check_same(transport, "clients.manifest", manifest.digest())
    train, classes = problem.task.train, len(problem.task.labels)
    assert isinstance(train, Gathered)
    held = [(np.bincount(part.labels, minlength=classes), part.digest()) for part in train.parts]
    private = recipe.privacy.mechanism != "none"
    return problem, hosted_pool(transport, c, recipe.seed, mine, held, manifest.weights, private)


def assemble(recipe: Recipe, transport: Transport, mesh: MeshShape, problem: Problem, pool: Pool) -> Run:
    """The run of `recipe` on this row with a problem and a pool that are there already."""
    a, c = recipe.algorithm, recipe.clients
    probe = Probe(problem.model, problem.forward, problem.weights, a.distribution, recipe.mesh.graphs)
    attack = Attack(recipe.attack, c.slope_noise, c.count, recipe.seed)
    mine = mesh.groups_of_row(transport.row, pool.n_groups)
    copy = Copy(problem.weights, host=a.walk_copy == "host")
    local = Local(pool, problem.task, probe, a.mu, mine, c, recipe.rounding, copy, attack.flips)
    header = make_header(recipe, problem, pool)
    algorithm, mover, dense = None, None, None
    if a.name in DENSE:
        dense = FirstOrder(recipe, problem, pool, local, transport, mine, attack.attackers)
    else:
        # Bound here on the first examples, not on the first batch a row meets, which depends on rows and on resuming.
        probe.bind(_few(recipe, problem.task))
        algorithm, mover = make_algorithm(header), make_mover(header, problem.weights)
    held = hashlib.blake2b(digest_size=16)
    for part in pool.parts:
        held.update(np.int64(len(part)).tobytes() + part.tobytes())
    data = f"{problem.task.train.digest()}-{held.hexdigest()}"
    if isinstance(pool, HostedPool):
        data = pool.data
    keep_freed_memory()  # what loading took has been given back
    return Run(recipe, transport, mesh, problem, pool, local, attack, header, data, algorithm, mover, dense)


def build_pool(recipe: Recipe, train: Examples) -> Pool:
    """Who holds which examples."""
    c = recipe.clients
    if recipe.algorithm.name == "mezo":
        return CentralPool(np.arange(len(train)), c.count, c.group, c.batch, recipe.seed)
    parts = partition(
        train.labels,
        c.count,
        c.partition,
        beta=c.beta,
        seed=derive(recipe.seed, "partition"),
        shards_per_client=c.shards_per_client,
        ids=train.owners,
    )
    return Pool(parts, c.cohort, c.group, c.batch, recipe.seed)


def make_header(recipe: Recipe, problem: Problem, pool: Pool, fingerprint: str | None = None) -> Header:
    """What the run's orbit says about itself.  fingerprint: of the base model; default: of the problem's weights."""
    a = recipe.algorithm
    return Header(
        algorithm=a.name,
        run_seed=recipe.seed,
        directions=a.directions,
        lr=a.lr,
        schedule={"name": a.schedule, "warmup": a.warmup, "rounds": recipe.rounds, "final": a.final},
        distribution=a.distribution,
        rounding=recipe.rounding,
        dtype=recipe.model.dtype,
        base_model=public_name(recipe.model.name),
        base_fingerprint=fingerprint or problem.weights.fingerprint(),
        layout_hash=problem.weights.layout_hash,
        train_only=a.train_only,
        payload="signs" if a.name == "feedsign" else "floats",
        kind=problem.kind,
        labels=problem.task.labels,
        settings=_settings(recipe.algorithm, pool),
    )


def _settings(a: AlgorithmConfig, pool: Pool) -> dict[str, Any]:
    """What the algorithm's file lists under Settings, for the orbit's header."""
    k = pool.cohort_size
    settings: dict[str, Any] = {}
    if a.name == "zo-fedsgd":
        settings = {"cohort": k, "seeds": a.seeds, "tally": a.tally, "trim": a.trim}
        settings["width"] = a.directions * (k if a.seeds == "own" else 1)
    elif a.name == "zo-fedavg":
        steps = pool.most_steps() if a.local_steps == "epoch" else a.local_steps or 5
        batches = "epoch" if a.local_steps == "epoch" else "step"
        settings = {"cohort": k, "steps": steps, "batches": batches, "width": k * steps}
    elif a.name in POOLED:
        settings = {"cohort": k, "pool": a.pool_size, "steps": a.local_steps or 200, "width": a.pool_size}
        if a.name == "fedkseed-pro":
            settings |= {"clip": a.history_clip, "width": 3 * a.pool_size}
    if a.update == "optimizer":
        settings |= {"optimizer": a.optimizer, "optimizer_options": a.optimizer_options}
    return settings


def make_forward(model: nn.Module, task: Task, row: Row) -> Forward:
    """inputs [R, ...] -> logits, computed only where the task reads them."""
    dtype = next(model.parameters()).dtype
    extra: dict[str, Any] = {}
    if task.keep_last and "logits_to_keep" in inspect.signature(model.forward).parameters:
        extra["logits_to_keep"] = task.keep_last
    pick = task.head_rows if task.head_rows is not None and not restrict_head(model, task.head_rows) else None

    def forward(inputs: dict[str, Tensor]) -> Tensor:
        inputs = {k: v.to(dtype) if v.is_floating_point() else v for k, v in inputs.items()}
        with row.peers():
            logits: Tensor = model(**inputs, **extra).logits
        return logits if pick is None else logits[..., pick]

    return forward
