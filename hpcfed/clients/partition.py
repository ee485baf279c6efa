"""Who holds which training example.

    iid         a shuffle, cut evenly
    dirichlet   of every class, client k gets a fraction drawn from Dirichlet(beta): small beta, few classes a client
                (Yurochkin et al. 2019; flwr-datasets' DirichletPartitioner)
    shards      sorted by class, cut into clients * shards_per_client pieces, dealt at random (McMahan et al. 2017)
    dirichlet-balanced
                the same, but who has n / clients examples gets no more of the next class, and drawn anew until every
                client has LEAST (Li et al. 2022, NIID-Bench; FedKSeed, Qin et al. 2024)
    quantity    classes as in iid, sizes drawn from Dirichlet(beta): small beta, few large clients
    natural     by owner; with more owners than clients, owners are dealt to clients in turn

Where examples have groups, groups are dealt: each as one example of the class of its first.

Promise  every example belongs to exactly one client and no client is empty; the result is a function of the arguments,
         the same on every rank; no group is divided
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..config.outside import is_outside, load_outside
from ..errors import ConfigError, DataError, did_you_mean, first_line
from ..seeds import derive, sample, shuffled

Indices = NDArray[np.int64]
LEAST, DRAWS = 10, 1000  # of dirichlet-balanced: examples of every client, and draws until it gives up


class Parts:
    """The indices of every client in one array, which is 8 bytes an example and 8 a client: [k] is a view of it.

    flat: int64 [n], client after client.  starts: int64 [clients + 1].
    """

    def __init__(self, flat: Indices, starts: Indices) -> None:
        self.flat, self.starts = flat, starts

    @staticmethod
    def cut(flat: Indices, sizes: Indices) -> Parts:
        """Client k gets the next sizes[k] of `flat`."""
        starts = np.zeros(len(sizes) + 1, np.int64)
        np.cumsum(sizes, out=starts[1:])
        return Parts(flat, starts)

    @staticmethod
    def joined(parts: Sequence[Indices]) -> Parts:
        return Parts.cut(np.concatenate(list(parts)), np.array([len(part) for part in parts], np.int64))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, k: int) -> Indices:
        if not 0 <= k < len(self):
            raise IndexError(k)
        return self.flat[self.starts[k] : self.starts[k + 1]]

    def __iter__(self) -> Iterator[Indices]:
        return (self[k] for k in range(len(self)))


@dataclass(frozen=True, eq=False)
class Deal:
    """What there is to deal, and how the recipe wants it.

    labels: int64 [n] in range(C), of the training examples.  clients: how many get some.  seed: of this deal, 64 bits.
    owners: [n], whom each example belongs to, where clients.id_column says so.  beta, shards_per_client: settings.
    groups: int64 [n], examples of one number go to one client; a Partition is given one entry a group, and no groups.
    """

    labels: Indices
    clients: int
    seed: int = 0
    owners: Sequence[object] | NDArray[np.generic] | None = None
    beta: float = 1.0
    shards_per_client: int = 2
    groups: Indices | None = None


#: A partition: which examples each client gets, as [clients] arrays of indices into the labels.
Partition = Callable[[Deal], "Parts | Sequence[Indices]"]


def partition(name: str, deal: Deal) -> Parts:
    """Sorted indices into the labels of each of the clients.

    name: a key of PARTITIONS, or FILE.py:NAME, a function of the user's own.
    Raises ConfigError if no such partition exists, e.g. with fewer examples than clients, or if the user's own loses an
    example, deals one twice, or leaves a client with none; DataError if it goes by owners and a group has two.
    """
    if deal.groups is not None:
        return _of_groups(name, deal, deal.groups)
    n = len(deal.labels)
    if n < deal.clients:
        raise ConfigError(
            f"clients.count={deal.clients}: there are only {n} training examples; use clients.count={n} or less"
        )
    if name in PARTITIONS:
        dealt = PARTITIONS[name](deal)
    elif is_outside(name):
        dealt = load_outside("clients.partition", name)(deal)
    else:
        raise ConfigError(f"clients.partition={name!r} is unknown{did_you_mean(name, PARTITIONS)}")
    try:
        parts = dealt if isinstance(dealt, Parts) else Parts.joined([np.asarray(part, np.int64) for part in dealt])
    except (TypeError, ValueError) as error:
        raise ConfigError(f"clients.partition={name!r}: gives no arrays of indices ({first_line(error)})") from None
    if wrong := _misdealt(parts, deal):
        raise ConfigError(f"clients.partition={name!r}: {wrong}")
    for part in parts:
        part.sort()
    return parts


def _of_groups(name: str, deal: Deal, groups: Indices) -> Parts:
    """The same of groups, in the order of their first examples."""
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    order = np.argsort(first)
    first, group = first[order], np.argsort(order)[group]
    owners = None if deal.owners is None else np.asarray(deal.owners)
    if owners is not None and (name == "natural" or is_outside(name)):
        others = np.flatnonzero(owners[first][group] != owners)
        if len(others):
            one, two = owners[first][group][others[0]], owners[others[0]]
            raise DataError(
                f"clients.partition={name!r}: examples of one group belong to {str(one)!r} and to {str(two)!r}; "
                "a group (task.group) must have one owner (clients.id_column)"
            )
    of_group = replace(deal, labels=deal.labels[first], owners=None if owners is None else owners[first], groups=None)
    try:
        parts = partition(name, of_group)
    except ConfigError as e:
        raise ConfigError(f"{e} (groups of examples, which are not divided, are counted as one: task.group)") from None
    client = np.empty(len(first), np.int64)
    client[parts.flat] = np.repeat(np.arange(deal.clients), np.diff(parts.starts))
    return Parts.cut(np.argsort(client[group], kind="stable"), np.bincount(client[group], minlength=deal.clients))


def _misdealt(parts: Parts, deal: Deal) -> str:
    """What is wrong with a partition, or nothing."""
    n = len(deal.labels)
    if len(parts) != deal.clients:
        return f"deals to {len(parts)} clients, where clients.count={deal.clients}"
    seen = np.zeros(n, bool)
    seen[parts.flat[(parts.flat >= 0) & (parts.flat < n)]] = True
    if len(parts.flat) != n or not seen.all():
        return f"must deal each of the examples 0..{n - 1} to one client, once"
    if (np.diff(parts.starts) == 0).any():
        return f"leaves client {int(np.diff(parts.starts).argmin())} without an example"
    return ""


def _iid(deal: Deal) -> Parts:
    n, clients = len(deal.labels), deal.clients
    larger = np.arange(clients) < n % clients
    return Parts.cut(_shuffled(n, deal.seed), n // clients + larger)


def _shuffled(n: int, seed: int) -> Indices:
    return np.frombuffer(shuffled(derive(seed, "shuffle"), n), np.int64)


def _dirichlet(deal: Deal) -> Parts:
    labels, clients, seed = deal.labels, deal.clients, deal.seed
    # Imported here: they take seconds, and most commands never partition anything.
    import datasets
    from flwr_datasets.partitioner import DirichletPartitioner

    class RowNumbers(datasets.Dataset):
        """A selection is the row numbers themselves: selecting real rows takes half a minute for 10,000 clients."""

        def select(self, indices: Sequence[int]) -> Indices:
            return np.asarray(indices, np.int64)

    # min_partition_size=0: for many clients a draw without empty ones hardly ever comes, and the library gives up.
    partitioner = DirichletPartitioner(
        clients, "label", float(deal.beta), min_partition_size=0, shuffle=False, seed=derive(seed, "dirichlet")
    )
    order = _shuffled(len(labels), seed)  # the library cuts each class in the order of the data
    partitioner.dataset = RowNumbers.from_dict({"label": labels[order]})
    return Parts.joined(_filled([order[partitioner.load_partition(k)] for k in range(clients)]))


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


def _dirichlet_balanced(deal: Deal) -> Parts:
    # Not flwr-datasets' self_balancing: it gives up after ten draws, and a client with the mean may get more.
    n, clients = len(deal.labels), deal.clients
    if n < LEAST * clients:
        raise ConfigError(
            f'clients.partition="dirichlet-balanced": {n} examples give no {clients} clients {LEAST} each; '
            f"use clients.count={n // LEAST} or less"
            if n >= LEAST
            else f'clients.partition="dirichlet-balanced": a client has {LEAST} examples, and there are only {n}'
        )
    order = _shuffled(n, deal.seed)
    order = order[np.argsort(deal.labels[order], kind="stable")]
    sizes = np.bincount(deal.labels)
    for attempt in range(DRAWS):
        if (counts := _balanced(sizes, clients, deal.beta, derive(deal.seed, "balanced", attempt))) is not None:
            break
    else:
        raise ConfigError(
            f'clients.partition="dirichlet-balanced": none of {DRAWS:,} draws gives each of {clients} clients {LEAST} '
            f"of {n} examples; use a larger clients.beta than {deal.beta:g}, or fewer clients"
        )
    client = np.repeat(np.tile(np.arange(clients), len(sizes)), counts.ravel())
    return Parts.cut(order[np.argsort(client, kind="stable")], counts.sum(axis=0))


def _balanced(sizes: Indices, clients: int, beta: float, seed: int) -> Indices | None:
    """int64 [C, clients], examples of each class that each client gets; None if one gets less than LEAST in all.

    sizes: int64 [C], examples of each class.
    """
    rng, counts = np.random.Generator(np.random.Philox(seed)), np.zeros((len(sizes), clients), np.int64)
    for size, row in zip(sizes, counts, strict=True):
        shares = rng.dirichlet(np.full(clients, beta)) * (counts.sum(axis=0) < sizes.sum() / clients)
        if not shares.sum() > 0:  # a small beta puts all into few shares, in which nothing may be left
            return None
        cuts = (np.cumsum(shares / shares.sum()) * size).astype(np.int64)
        cuts[-1] = size
        row[:] = np.diff(cuts, prepend=0)
    return counts if counts.sum(axis=0).min() >= LEAST else None


def _shards(deal: Deal) -> Parts:
    labels, clients, shards_per_client, seed = deal.labels, deal.clients, deal.shards_per_client, deal.seed
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
    return Parts.joined([np.concatenate([pieces[s] for s in own]) for own in dealt])


def _quantity(deal: Deal) -> Parts:
    """One example each, the rest in proportion to a draw of Dirichlet(beta)."""
    n, clients = len(deal.labels), deal.clients
    # Not flwr-datasets' size partitioners: their skew is fixed, and they fail where a client would come out empty.
    fractions = np.random.Generator(np.random.Philox(derive(deal.seed, "sizes"))).dirichlet(np.full(clients, deal.beta))
    cuts = np.floor(np.cumsum(fractions) * (n - clients) + 0.5).astype(np.int64)
    cuts[-1] = n - clients
    return Parts.cut(_shuffled(n, deal.seed), 1 + np.diff(cuts, prepend=0))


def _natural(deal: Deal) -> Parts:
    ids, clients, seed = deal.owners, deal.clients, deal.seed
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
    return Parts.cut(order, np.bincount(client[owner], minlength=clients))


PARTITIONS: dict[str, Partition] = {
    "iid": _iid,
    "dirichlet": _dirichlet,
    "dirichlet-balanced": _dirichlet_balanced,
    "shards": _shards,
    "quantity": _quantity,
    "natural": _natural,
}
BY_CLASS = ("dirichlet", "dirichlet-balanced", "shards")  # those that look at classes
