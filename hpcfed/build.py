"""From a recipe to a run: the only file that knows every concrete class."""

from __future__ import annotations

import hashlib
import inspect
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .algorithms import ALGORITHMS, Algorithm, make_algorithm
from .clients import Pool, partition
from .config import ModelConfig, Recipe
from .errors import ConfigError, did_you_mean
from .head import restrict_head
from .local import Local
from .mesh import MeshShape
from .model import load_model, load_processor, model_kind
from .noise import set_threads
from .orbit import Header, public_name
from .probe import Forward, Probe
from .seeds import derive
from .tasks import Task, kind_of, load_task
from .transport import Transport
from .weights import Weights


@dataclass(eq=False)
class Problem:
    """A model and a task that fit each other, with the trained weights addressed. processor: tokenizer or None."""

    model: nn.Module
    processor: Any
    task: Task
    weights: Weights
    forward: Forward
    kind: str


@dataclass(eq=False)
class Run:
    """Everything one row needs to take part in the rounds of a recipe."""

    recipe: Recipe
    transport: Transport
    mesh: MeshShape
    problem: Problem
    pool: Pool
    local: Local
    algorithm: Algorithm
    header: Header
    data: str  # digest of the training examples and of who holds which


def build_problem(recipe: Recipe) -> Problem:
    """Load data and model of a recipe; the head is restricted to the words the task scores."""
    if recipe.mesh.threads:
        torch.set_num_threads(recipe.mesh.threads)
    set_threads(torch.get_num_threads())
    kind = kind_of(recipe.task, model_kind(recipe.model))
    processor = load_processor(recipe.model, kind)
    task = load_task(recipe.task, kind, processor, recipe.clients.id_column)
    model = load_model(recipe.model, kind, task.labels)
    weights = Weights(model, recipe.algorithm.train_only)
    return Problem(model, processor, task, weights, _forward(model, task), kind)


def build_base(header: Header, name: str, revision: str | None, pad_token: str | None) -> tuple[nn.Module, Weights]:
    """The base model of an orbit, loaded from `name` as the run loaded it, and its weights."""
    config = ModelConfig(name=name, dtype=header.dtype, revision=revision, pad_token=pad_token)  # type: ignore[arg-type]
    model = load_model(config, header.kind, header.labels)
    return model, Weights(model, header.train_only)


def build_run(recipe: Recipe, transport: Transport) -> Run:
    """The run of `recipe` on this row. Raises ConfigError or DataError; nothing has been written yet."""
    a, c = recipe.algorithm, recipe.clients
    if a.name not in ALGORITHMS:
        raise ConfigError(f"algorithm.name={a.name!r} is unknown{did_you_mean(a.name, ALGORITHMS)}")
    if recipe.mesh.shards != 1:
        raise ConfigError(f"mesh.shards={recipe.mesh.shards}: this version runs one rank a row; use mesh.shards=1")
    mesh = MeshShape(transport.rows, recipe.mesh.shards)
    mesh.check_groups(-(-c.count // c.group))
    problem = build_problem(recipe)
    parts = partition(
        problem.task.train.labels,
        c.count,
        c.partition,
        beta=c.beta,
        seed=derive(recipe.seed, "partition"),
        shards_per_client=c.shards_per_client,
        ids=problem.task.train.owners,
    )
    pool = Pool(parts, c.cohort, c.group, c.batch, recipe.seed)
    probe = Probe(problem.model, problem.forward, problem.weights, a.distribution)
    # Bound here on the first examples, not on the first batch a row meets, which depends on rows and on resuming.
    probe.bind(problem.task.collate([problem.task.train[i] for i in range(min(3, len(problem.task.train)))]).inputs)
    local = Local(pool, problem.task, probe, a.mu, mesh.groups_of_row(transport.row, pool.n_groups), c)
    header = make_header(recipe, problem)
    held = hashlib.blake2b(b"".join(np.int64(len(p)).tobytes() + p.tobytes() for p in parts), digest_size=16)
    data = f"{problem.task.train.digest()}-{held.hexdigest()}"
    return Run(recipe, transport, mesh, problem, pool, local, make_algorithm(header), header, data)


def make_header(recipe: Recipe, problem: Problem) -> Header:
    """What the run's orbit says about itself."""
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
        base_fingerprint=problem.weights.fingerprint(),
        layout_hash=problem.weights.layout_hash,
        train_only=a.train_only,
        payload="signs",
        kind=problem.kind,
        labels=problem.task.labels,
    )


def _forward(model: nn.Module, task: Task) -> Forward:
    """inputs [R, ...] -> logits, computed only where the task reads them."""
    dtype = next(model.parameters()).dtype
    extra: dict[str, Any] = {}
    if task.keep_last and "logits_to_keep" in inspect.signature(model.forward).parameters:
        extra["logits_to_keep"] = task.keep_last
    pick = task.head_rows if task.head_rows is not None and not restrict_head(model, task.head_rows) else None

    def forward(inputs: dict[str, Tensor]) -> Tensor:
        inputs = {k: v.to(dtype) if v.is_floating_point() else v for k, v in inputs.items()}
        logits: Tensor = model(**inputs, **extra).logits
        return logits if pick is None else logits[..., pick]

    return forward
