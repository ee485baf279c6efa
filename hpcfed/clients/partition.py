"""Who holds which training example.

    iid         a shuffle, cut evenly
    dirichlet   of every class, client k gets a fraction drawn from Dirichlet(beta): small beta, few classes a client
                (Yurochkin et al. 2019; flwr-datasets' DirichletPartitioner)
    shards      sorted by class, cut into clients * shards_per_client pieces, dealt at random (McMahan et al. 2017)
    quantity    classes as in iid, sizes drawn from Dirichlet(beta): small beta, few large clients
    natural     by owner; with more owners than clients, owners are dealt to clients in turn

Promise  every example belongs to exactly one client and no client is empty; the result is a function of the arguments,
         the same on every rank
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, did_you_mean
from ..seeds import derive, sample

Indices = NDArray[np.int64]
SCHEMES = ("iid", "dirichlet", "shards", "quantity", "natural")


def partition(
    labels: Indices,
    clients: int,
    scheme: str,
    *,
    beta: float = 1.0,
    seed: int = 0,
    shards_per_client: int = 2,
    ids: Sequence[object] | NDArray[np.generic] | None = None,
) -> list[Indices]:
    """Sorted indices into `labels` of each of the `clients` clients.

    labels: int64 [n] in range(C).  seed: any 64-bit seed.  ids: [n] owners, for "natural".
    Raises ConfigError if no such partition exists, e.g. with fewer examples than clients.
    """
    n = len(labels)
    if n < clients:
        raise ConfigError(
            f"clients.count={clients}: there are only {n} training examples; use clients.count={n} or less"
        )
    if scheme == "iid":
        parts = np.array_split(_shuffled(n, seed), clients)
    elif scheme == "dirichlet":
        parts = _dirichlet(labels, clients, beta, seed)
    elif scheme == "shards":
        parts = _shards(labels, clients, shards_per_client, seed)
    elif scheme == "quantity":
        parts = np.split(_shuffled(n, seed), np.cumsum(_sizes(n, clients, beta, seed))[:-1])
    elif scheme == "natural":
        parts = _natural(ids, clients, seed)
    else:
        raise ConfigError(f"clients.partition={scheme!r} is unknown{did_you_mean(scheme, SCHEMES)}")
    parts = [np.sort(part) for part in parts]
    assert len(parts) == clients and all(len(part) for part in parts) and sum(map(len, parts)) == n
    return parts


def _shuffled(n: int, seed: int) -> Indices:
    return np.array(sample(derive(seed, "shuffle"), n, n), np.int64)


def _dirichlet(labels: Indices, clients: int, beta: float, seed: int) -> list[Indices]:
    # Imported here: they take seconds, and most commands never partition anything.
    import datasets
    from flwr_datasets.partitioner import DirichletPartitioner

    class RowNumbers(datasets.Dataset):
        """A selection is the row numbers themselves: selecting real rows takes half a minute for 10,000 clients."""

        def select(self, indices: Sequence[int]) -> Indices:
            return np.asarray(indices, np.int64)

    # min_partition_size=0: for many clients a draw without empty ones hardly ever comes, and the library gives up.
    partitioner = DirichletPartitioner(
        clients, "label", float(beta), min_partition_size=0, shuffle=False, seed=derive(seed, "dirichlet")
    )
    order = _shuffled(len(labels), seed)  # the library cuts each class in the order of the data
    partitioner.dataset = RowNumbers.from_dict({"label": labels[order]})
    return _filled([order[partitioner.load_partition(k)] for k in range(clients)])


def _filled(parts: list[Indices]) -> list[Indices]:
    """Every empty client gets one example of the client that is largest at the time (the first of equals)."""
    largest = [(-len(part), k) for k, part in enumerate(parts)]
    heapq.heapify(largest)
    for k in [k for k, part in enumerate(parts) if not len(part)]:
        size, giver = heapq.heappop(largest)
        assert size < -1  # else all clients hold one example at most, and there were enough for all
        parts[k], parts[giver] = parts[giver][-1:], parts[giver][:-1]
        heapq.heappush(largest, (size + 1, giver))
    return parts


def _shards(labels: Indices, clients: int, shards_per_client: int, seed: int) -> list[Indices]:
    # Not flwr-datasets' ShardPartitioner: it leaves out what does not fill a shard, up to half of the data.
    shards = clients * shards_per_client
    if shards > len(labels):
        raise ConfigError(
            f"clients.shards_per_client={shards_per_client}: {clients} clients make {shards} shards of only "
            f"{len(labels)} examples; at most {len(labels) // clients} shards a client are possible"
        )
    order = _shuffled(len(labels), seed)
    pieces = np.array_split(order[np.argsort(labels[order], kind="stable")], shards)
    dealt = np.array(sample(derive(seed, "shards"), shards, shards)).reshape(clients, shards_per_client)
    return [np.concatenate([pieces[s] for s in own]) for own in dealt]


def _sizes(n: int, clients: int, beta: float, seed: int) -> Indices:
    """int64 [clients]: one example each, the rest in proportion to a draw of Dirichlet(beta)."""
    # Not flwr-datasets' size partitioners: their skew is fixed, and they fail where a client would come out empty.
    fractions = np.random.Generator(np.random.Philox(derive(seed, "sizes"))).dirichlet(np.full(clients, beta))
    cuts = np.floor(np.cumsum(fractions) * (n - clients) + 0.5).astype(np.int64)
    cuts[-1] = n - clients
    return 1 + np.diff(cuts, prepend=0)


def _natural(ids: Sequence[object] | NDArray[np.generic] | None, clients: int, seed: int) -> list[Indices]:
    # Not flwr-datasets' NaturalIdPartitioner: it has as many clients as owners, always, and writes a progress bar.
    if ids is None:
        raise ConfigError('clients.partition="natural": clients.id_column must name the column that holds the owner')
    owners, owner = np.unique(np.asarray(ids), return_inverse=True)
    if len(owners) < clients:
        raise ConfigError(
            f"clients.count={clients}: the training data have only {len(owners)} owners; "
            f"use clients.count={len(owners)} or less"
        )
    client = np.empty(len(owners), np.int64)
    client[sample(derive(seed, "owners"), len(owners), len(owners))] = np.arange(len(owners)) % clients
    order = np.argsort(client[owner], kind="stable")
    return np.split(order, np.cumsum(np.bincount(client[owner], minlength=clients))[:-1])


@dataclass(frozen=True, eq=False)
class PartitionReport:
    """counts: int64 [clients, C], examples of each class with each client.  names: the C classes.

    skew: mean over clients of the total variation distance between the client's classes and everybody's, in [0, 1]:
    0 where all clients look alike.  classes: mean number of classes a client holds.
    """

    counts: Indices
    names: list[str]
    skew: float
    classes: float

    @property
    def sizes(self) -> Indices:
        """int64 [clients], examples a client."""
        return self.counts.sum(axis=1)

    def data(self, most: int = 50) -> dict[str, Any]:
        """What partition.json holds and `hpcfed plot` draws; small for any number of clients.

        counts: of the first `most` clients.  sizes: smallest, median and largest number of examples a client.
        """
        return {
            "clients": len(self.counts),
            "examples": int(self.counts.sum()),
            "sizes": np.quantile(self.sizes, [0, 0.5, 1]).tolist(),
            "skew": round(self.skew, 4),
            "classes": round(self.classes, 4),
            "names": self.names,
            "counts": self.counts[:most].tolist(),
        }

    def line(self) -> str:
        """The partition in one line: 10 clients hold 700 examples, ..."""
        smallest, median, largest = np.quantile(self.sizes, [0, 0.5, 1])
        return (
            f"{len(self.counts):,} clients hold {self.counts.sum():,} examples, {smallest:g} to {largest:g} each "
            f"(median {median:g}); {self.classes:.3g} of {len(self.names)} classes a client, skew {self.skew:.2f}"
        )


def partition_report(parts: Sequence[Indices], labels: Indices, names: Sequence[str]) -> PartitionReport:
    """How classes and sizes differ between clients: what the line and the picture show."""
    owner = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    flat = owner * len(names) + labels[np.concatenate(list(parts))]
    counts = np.bincount(flat, minlength=len(parts) * len(names)).reshape(len(parts), len(names))
    share = counts / counts.sum(axis=1, keepdims=True)
    everybody = counts.sum(axis=0) / counts.sum()
    skew = float(np.abs(share - everybody).sum(axis=1).mean() / 2)
    return PartitionReport(counts, list(names), skew, float((counts > 0).sum(axis=1).mean()))
