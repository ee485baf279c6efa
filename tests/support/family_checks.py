"""What every rank does in test_family.py: short runs of the digits by every method, many on one launch."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from hpcfed.cli.main import main
from hpcfed.config import load_recipe
from hpcfed.errors import TransportError
from hpcfed.train.meet import Meeting
from hpcfed.train.start import run_recipe
from hpcfed.transport.base import Transport
from hpcfed.transport.launch import discover
from tests.support.harness import _rank

# Six clients in groups of two: three rows can share them. save_every: what a killed dense run goes on from.
TINY = [
    "rounds=3",
    "save_every=1",
    "clients.count=6",
    "clients.batch=16",
    "task.eval_limit=150",
    "algorithm.schedule=constant",
]
POOL = ["algorithm.pool_size=8", "algorithm.local_steps=3"]

#: Every method, by what is special about it: overrides on top of TINY.
FAMILY = {
    "feedsign": [],
    "zo-fedsgd": ["algorithm.name=zo-fedsgd"],
    "zo-fedsgd median": ["algorithm.name=zo-fedsgd", "algorithm.seeds=shared", "algorithm.tally=median"],
    "zo-fedavg": ["algorithm.name=zo-fedavg", "clients.per_round=4"],
    "zo-fedavg epoch": ["algorithm.name=zo-fedavg", "algorithm.local_steps=epoch", "clients.batch=64"],
    "mezo": ["algorithm.name=mezo"],
    "fedkseed": ["algorithm.name=fedkseed", *POOL],
    "fedkseed-pro": ["algorithm.name=fedkseed-pro", *POOL],
    "fedsgd": ["algorithm.name=fedsgd"],
    "fedavg": ["algorithm.name=fedavg", "algorithm.optimizer=Adam", "algorithm.lr=1e-3", "clients.batch=64"],
}
DENSE = ("fedsgd", "fedavg")

#: Updates through an optimiser, and 16-bit weights.
MOVED = {
    "feedsign adam": ["algorithm.update=optimizer", "algorithm.optimizer=Adam", "algorithm.directions=3"],
    "zo-fedsgd momentum": [
        "algorithm.name=zo-fedsgd", "algorithm.update=optimizer", "algorithm.optimizer_options.momentum=0.9",
    ],
    "feedsign bf16": ["model.dtype=bfloat16", "algorithm.schedule=cosine", "algorithm.warmup=1"],
    "zo-fedsgd bf16": ["model.dtype=bfloat16", "algorithm.name=zo-fedsgd", "algorithm.directions=2"],
    "zo-fedavg bf16": ["model.dtype=bfloat16", "algorithm.name=zo-fedavg", "algorithm.local_steps=2"],
    "mezo bf16": ["model.dtype=bfloat16", "algorithm.name=mezo", "algorithm.rounding=nearest"],
    "fedkseed bf16": ["model.dtype=bfloat16", "algorithm.name=fedkseed", *POOL],
}  # fmt: skip

BYZANTINE = ["attack.clients=2"]
ATTACKED = {
    "reverse": [*BYZANTINE, "attack.kind=reverse", "rounds=8"],
    "random": [*BYZANTINE, "attack.kind=random", "algorithm.name=zo-fedsgd", "algorithm.seeds=shared"],
    "collude": [*BYZANTINE, "attack.kind=collude", "algorithm.name=zo-fedsgd", "clients.per_round=4"],
    "collude and walk": [*BYZANTINE, "attack.kind=collude", "algorithm.name=zo-fedavg", "algorithm.local_steps=2"],
    "collude and vote": [*BYZANTINE, "attack.kind=collude", "clients.slope_noise=2.0", "rounds=8"],
    "label-flip": [*BYZANTINE, "attack.kind=label-flip", "algorithm.name=zo-fedsgd"],
    "stuff": ["attack.clients=[5]", "attack.kind=stuff", "algorithm.ballot=bits", "rounds=8"],
    "fedsgd reverse": [*BYZANTINE, "attack.kind=reverse", "algorithm.name=fedsgd"],
}
VARIANTS = FAMILY | MOVED | ATTACKED

#: At this epsilon every decided bit is nearly a fair coin. Two runs of 30 rounds would not agree by chance.
NOISY = ["rounds=30", "privacy.epsilon=0.05", 'algorithm.train_only=["classifier.*"]']
PRIVATE = {
    "central": [*NOISY, "privacy.mechanism=central"],
    "local": [*NOISY, "privacy.mechanism=local"],
}


def result(folder: Path) -> str:
    """The sealed orbit or the trained weights of a finished run, in hex; empty if there are none."""
    files = [folder / name for name in ("orbit.safetensors", "weights.safetensors") if (folder / name).exists()]
    assert len(files) <= 1, files
    return files[0].read_bytes().hex() if files else ""


def one_run(transport: Transport, out: str, settings: list[str], resume: bool = False) -> list[Any]:
    """Train; fingerprint, status, rounds and result, which row 0 alone writes and every row reads."""
    recipe = load_recipe("digits", [*TINY, *settings])
    summary = run_recipe(Meeting(recipe, transport, discover()), Path(out), resume, quiet=True).summary
    transport.barrier()
    return [summary["fingerprint"], summary["status"], summary["rounds"], result(Path(out))]


def family(transport: Transport, folder: str, names: list[str], private: list[str]) -> dict[str, Any]:
    """Variants one after the other; then private runs, each twice, and stuffed ballot boxes."""
    found: dict[str, Any] = {name: one_run(transport, f"{folder}/{name}", VARIANTS[name]) for name in names}
    for name in private:
        found[name] = [one_run(transport, f"{folder}/{name} {i}", PRIVATE[name]) for i in (1, 2)]
    open_box = stuffed(transport, f"{folder}/stuffed")
    hidden_box = stuffed(transport, f"{folder}/stuffed privately", "privacy.mechanism=central", "privacy.epsilon=1")
    return found | {"stuffed": [open_box, hidden_box]}


def stuffed(transport: Transport, out: str, *more: str) -> str:
    """What every row says when a client sends a hundred votes where votes are summed."""
    try:
        one_run(transport, out, ["attack.clients=[5]", "attack.kind=stuff", *more])
    except TransportError as e:
        return str(e)
    return "nobody noticed"


def _become(launched: dict[str, str], output: str) -> None:
    os.environ.update(launched)
    with open(output, "ab", 0) as file:  # noqa: PTH123  (a descriptor is wanted)
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def command(launched: dict[str, str], output: str, *argv: str) -> None:
    """`hpcfed *argv`, the whole of a process that was forked with everything imported."""
    _become(launched, output)
    sys.argv = ["hpcfed", *argv]
    main()


def rank(launched: dict[str, str], output: str, *argv: str) -> None:
    """A rank of run_ranks, likewise."""
    _become(launched, output)
    _rank(*argv)
