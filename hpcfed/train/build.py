"""From a recipe to a run: the only file that knows every concrete class."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..algorithms import make_algorithm
from ..algorithms.header import make_header
from ..clients import BY_CLASS, Attack, CentralPool, Deal, Pool, partition
from ..clients.hosted import hosted_pool
from ..clock import Clock
from ..config import Manifest, Recipe, load_method, read_manifest
from ..errors import ConfigError
from ..first_order import FirstOrder
from ..privacy import MECHANISMS, make_privacy
from ..probe.hosted import Hosted
from ..probe.resolution import check_mu
from ..probe.slopes import ClientProbe
from ..probe.trial import bound_probe
from ..seeds import derive
from ..tasks import Task
from ..tasks.sources import Gathered
from ..transport.base import Transport, check_same, together
from ..transport.device import keep_freed_memory
from ..transport.mesh import MeshShape
from ..weights import make_mover
from .digests import digests
from .keep import check_dev
from .problem import Problem, build_problem, few_inputs
from .run import DenseRun, OrbitRun, Run


def build_run(recipe: Recipe, transport: Transport, layout: str = "") -> Run:
    """The run of `recipe` on this row. Raises ConfigError or DataError; nothing has been written yet.

    layout: the layout hash of the run that is gone on with, if one is.
    Collective with clients.manifest, where a row loads the data of the clients it hosts and no others.
    """
    c, shards = recipe.clients, transport.row.shards
    assert recipe.mesh.shards == shards, "the ranks are spread as the recipe says"
    mesh = MeshShape(transport.rows, shards)
    mesh.check_groups(-(-c.count // c.group))
    if c.manifest is None:
        problem = build_problem(recipe, transport.row)
        pool = build_pool(recipe, problem.task)
    else:
        problem, pool = build_hosted(recipe, c.manifest, transport, mesh)
    if recipe.keep_best:
        check_dev(problem.task)
    mesh.check_groups(pool.n_groups)  # of slices, where there are fewer than clients
    if layout:
        problem.weights.follow(layout)
    return assemble(recipe, transport, mesh, problem, pool)


def build_hosted(recipe: Recipe, name: str, transport: Transport, mesh: MeshShape) -> tuple[Problem, Pool]:
    """Collective: what this row holds of the clients of manifest `name`, and what all rows know of all of them."""
    c = recipe.clients
    groups = mesh.groups_of_row(transport.row.index, -(-c.count // c.group))
    hosted = range(groups.start * c.group, min(groups.stop * c.group, c.count))

    def read() -> Manifest:
        manifest = read_manifest(name)
        if (n := len(manifest.clients)) != c.count:
            raise ConfigError(f"clients.count={c.count}: clients.manifest={name!r} has {n}; leave clients.count out")
        return manifest

    def load() -> tuple[Manifest, Problem]:
        manifest = transport.row.together(read)
        return manifest, build_problem(recipe, transport.row, manifest.clients[hosted.start : hosted.stop])

    manifest, problem = together(transport, load)
    check_same(transport, "clients.manifest", manifest.digest())
    train, (counted, names) = problem.task.train, problem.task.counted
    assert isinstance(train, Gathered)
    parts = np.split(counted, np.cumsum([len(part) for part in train.parts])[:-1])
    counts = [np.bincount(part, minlength=len(names)) for part in parts]
    holdings = list(zip(counts, [part.digest() for part in train.parts], strict=True))
    may_tell = MECHANISMS[recipe.privacy.mechanism].may_tell
    return problem, hosted_pool(transport, recipe, hosted, holdings, manifest.weights, may_tell)


def assemble(recipe: Recipe, transport: Transport, mesh: MeshShape, problem: Problem, pool: Pool) -> Run:
    """The run of `recipe` on this row with a problem and a pool that are there already."""
    a, c, weights, clock = recipe.algorithm, recipe.clients, problem.weights, Clock()
    attack = Attack(recipe.attack, c.slope_noise, c.count, recipe.seed, transport)
    hosted = Hosted(pool, problem.task, mesh.groups_of_row(transport.row.index, pool.n_groups), c, attack.flips)
    header = make_header(recipe, weights, problem.kind, problem.task.labels, pool, told=problem.task.told)
    parts: dict[str, Any] = {
        "recipe": recipe,
        "transport": transport,
        "mesh": mesh,
        "problem": problem,
        "pool": pool,
        "attack": attack,
        "privacy": make_privacy(recipe.privacy, a.directions, pool.clients, pool.cohort),
        "header": header,
        "data": pool.digest(problem.task.train),
        "digests": digests(recipe, problem),
        "clock": clock,
    }
    run: Run
    if a.traits.dense:
        first_order = FirstOrder(recipe, weights, problem.forward, hosted, attack, transport, clock)
        run = DenseRun(**parts, first_order=first_order)
    else:
        check_mu(weights, a.mu, recipe.model.dtype)
        # Bound on the first examples, not on the first batch a row meets, which depends on rows and on resuming.
        first, graphs = few_inputs(recipe, problem.task), recipe.mesh.graphs
        probe = bound_probe(first, problem.model, problem.forward, weights, a.distribution, graphs, clock)
        method, mover = make_algorithm(header, load_method(a.name)), make_mover(header, weights)
        clients = ClientProbe(hosted, probe, recipe, clock)
        run = OrbitRun(**parts, method=method, mover=mover, probe=probe, clients=clients)
    keep_freed_memory()  # what loading took has been given back
    return run


def build_pool(recipe: Recipe, task: Task) -> Pool:
    """Who holds which examples. ConfigError if they have no classes, which the partition looks at."""
    c, train = recipe.clients, task.train
    if recipe.algorithm.traits.central:
        return CentralPool(np.arange(len(train)), c.count, c.group, c.batch, recipe.seed)
    seed = derive(recipe.seed, "partition")
    classes = train.labels if train.classes is None else train.classes
    if c.class_column is not None and train.classes is None:
        raise ConfigError(
            f"clients.class_column={c.class_column!r}: task {task.name!r} has no such columns; leave it out for the "
            "label"
        )
    if c.partition in BY_CLASS and train.classes is None and not task.labels:
        raise ConfigError(
            f"clients.partition={c.partition!r}: task {task.name!r} has no classes; clients.class_column names the "
            "column whose values are dealt as such"
        )
    deal = Deal(classes, c.count, seed, train.owners, c.beta, c.shards_per_client, train.groups)
    parts = partition(c.partition, deal)
    return Pool(parts, c.cohort, c.group, c.batch, recipe.seed)


def build_together(recipe: Recipe, transport: Transport, layout: str = "") -> Run:
    """Collective: build_run on every row; if any row cannot, every row says why."""
    return together(transport, lambda: build_run(recipe, transport, layout))
