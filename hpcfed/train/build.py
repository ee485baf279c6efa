"""From a recipe to a run: the only file that knows every concrete class."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from ..algorithms import Algorithm, make_algorithm
from ..algorithms.header import make_header
from ..clients import Attack, CentralPool, Pool, partition
from ..clients.hosted import HostedPool, hosted_pool
from ..clock import Clock
from ..config import DENSE, Manifest, Recipe, read_manifest
from ..errors import ConfigError
from ..first_order.round import FirstOrder
from ..orbit import Header
from ..probe import Probe
from ..probe.slopes import Local
from ..seeds import derive
from ..tasks import Examples
from ..tasks.sources import Gathered
from ..transport.base import Transport, check_same, together
from ..transport.device import keep_freed_memory
from ..transport.mesh import MeshShape
from ..weights.mover import Mover, make_mover
from ..weights.weights import Copy
from .problem import Problem, _few, build_problem


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
    header = make_header(recipe, problem.weights, problem.kind, problem.task.labels, pool)
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


def build_together(recipe: Recipe, transport: Transport) -> Run:
    """Collective: build_run on every row; if any row cannot, every row says why."""
    return together(transport, lambda: build_run(recipe, transport))
