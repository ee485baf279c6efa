"""What every rank does in test_shards.py, on rows of several ranks."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import traceback
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn

from hpcfed.config import ModelConfig, Recipe, load_recipe
from hpcfed.errors import ConfigError, HpcfedError
from hpcfed.model import save_model, save_shards
from hpcfed.model.decode import make_generate
from hpcfed.model.head import make_forward, takes
from hpcfed.noise.layout import Slice
from hpcfed.orbit import load_any
from hpcfed.probe.decode import decode_sides
from hpcfed.probe.trial import bound_probe
from hpcfed.train.build import build_run, build_together
from hpcfed.train.meet import Meeting
from hpcfed.train.problem import Problem, build_base, build_problem, compare_with_whole_model
from hpcfed.train.replay import check_base, replay_into
from hpcfed.train.run import OrbitRun
from hpcfed.train.start import run_recipe
from hpcfed.transport.base import Transport
from hpcfed.transport.choose import spread
from hpcfed.transport.launch import discover
from hpcfed.transport.row import Row
from hpcfed.weights import Weights
from tests.support.harness import _rank, free_port
from tests.support.train_checks import signalled
from tests.support.written import prompts

ROUNDS = 12
LONG = 40  # rounds: long enough that a run still goes on when a rank is killed after ten
#: Whose files a folder has: row 0 of two hosts the first four clients, whose groups are two, row 1 the others.
PLACES = {"row0": range(4), "row1": range(4, 6), "all": range(6)}
#: 3 shards of 4 heads, of 4 key-value heads (8 of queries) and of 4 heads: none divides.
FAMILIES = ("opt", "llama", "mpt", "roberta")
WRITERS = ("opt", "llama", "mpt")
DTYPES = ("float32", "bfloat16")


def recipe_of(folder: str, family: str, *more: str) -> Recipe:
    """Six clients on a tiny model of the family."""
    base = [
        f"model.name={folder}/{family}", f"task.data={folder}/sst2", f"rounds={ROUNDS}", "eval_every=0", "log_every=1",
        "clients.count=6", "clients.batch=4", "clients.max_batch_tokens=0", "clients.group=2", "algorithm.lr=1e-3",
        "mesh.threads=1", "check_every=1",
    ]  # fmt: skip
    return load_recipe("sst2-opt-125m", [*base, *more])


def said(work: Any) -> str:
    """The error that `work` ends with."""
    try:
        work()
    except HpcfedError as e:
        return f"{type(e).__name__}: {e}"
    return "nothing"


def written(model: nn.Module, weights: Weights) -> list[list[list[int]]]:
    """What the model writes after a few prompts, and what it writes with w + mu z and with w - mu z."""
    inputs = {name: ids for name, ids in prompts(5).items() if takes(model, name)}
    probe = bound_probe(inputs, model, make_forward(model, weights.row), weights, "gaussian")
    plain = make_generate(model, weights.row)(inputs, 8, frozenset())
    return [plain, *decode_sides(probe, inputs, 3, 0.05, 8, frozenset())]


def replayed(row: Row, folder: str) -> dict[str, Any]:
    """Fingerprint of each family and dtype after its orbit, and what the causal models then write."""
    found: dict[str, Any] = {"written": {}}
    for family in FAMILIES:
        for dtype in DTYPES:
            orbit = load_any(Path(folder, f"{family}-{dtype}.safetensors"))
            with mock.patch("hpcfed.model.shards.load_model", side_effect=AssertionError("read whole")):
                model, weights = build_base(orbit.header, f"{folder}/{family}", None, None, row)
            rotary: Any = model.get_submodule("model").rotary_emb if family == "llama" else None
            assert rotary is None or rotary.inv_freq.dtype == torch.float32  # DeepSpeed casts it to the weights' dtype
            assert row.shards == 1 or weights.slices
            check_base(orbit.header, weights, dtype)
            replay_into(orbit.header, orbit.decisions, weights)
            found[f"{family}-{dtype}"] = weights.fingerprint()
            if family in WRITERS and dtype == "float32":
                found["written"][family] = written(model, weights)
            out = Path(folder, f"saved-{family}-{dtype}-{row.shards}")
            base = ModelConfig(name=f"{folder}/{family}")
            save_shards(
                model, weights.slices, row, partial(save_model, base=base, labels=(), pad_token=None, page="", out=out)
            )
    return found


def traps(row: Row, folder: str) -> dict[str, Any]:
    """Each way in which shards go wrong in silence, and what is said of it."""
    found: dict[str, Any] = {}
    recipe = recipe_of(folder, "opt", "mesh.shards=2", "mesh.check=false")
    torch.manual_seed(100 + row.shard)
    before = torch.get_rng_state()
    problem = build_problem(recipe, row)
    found["random state kept"] = torch.equal(before, torch.get_rng_state())
    model: Any = problem.model
    found["tied"] = model.lm_head.weight.data_ptr() == model.model.decoder.embed_tokens.weight.data_ptr()
    found["right"] = said(lambda: compare_with_whole_model(recipe, problem))
    found["ranks of the world"] = torch.distributed.get_world_size()
    with mock.patch("hpcfed.train.problem._affordable", return_value=False):
        found["left out"] = compare_with_whole_model(recipe, problem)

    layer = model.model.decoder.layers[1].fc2
    group, layer.mp_group = layer.mp_group, None  # a sum over nobody
    found["wrong group"] = said(lambda: compare_with_whole_model(recipe, problem))
    layer.mp_group = group
    layer.weight.data, kept = layer.weight.data[:, row.shard :], layer.weight.data  # a part that one shard cannot use
    found["misfit"] = said(lambda: compare_with_whole_model(recipe, problem))
    layer.weight.data = kept
    layer.bias.data += 0.5 * row.shard  # what both shards hold
    found["shards differ"] = said(problem.weights.fingerprint)
    found["one shard fails"] = said(lambda: row.together(lambda: failing() if row.shard else None))
    return found | {"exchanged": said(lambda: compare_with_whole_model(recipe, exchanged(problem, recipe, row)))}


def exchanged(problem: Problem, recipe: Recipe, row: Row) -> Problem:
    """The problem with the addresses of another shard."""
    again = build_problem(recipe, row)
    weights = again.weights
    for name, s in weights.slices.items():
        other = Slice(s.shape, s.dim, (s.index + len(s.index)) % s.shape[s.dim])
        weights.pieces[name] = other.piece(name)
    return again


def killed(everybody: Transport, folder: str) -> None:
    """Shard 1 dies while shard 0 is in a forward pass, inside DeepSpeed's sum."""
    transport = spread(everybody, discover(), 2)
    problem = build_problem(recipe_of(folder, "opt", "mesh.shards=2", "mesh.check=false"), transport.row)
    inputs = problem.task.collate([problem.task.train[0]]).inputs
    transport.barrier()
    if transport.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    problem.forward(inputs)


def failing() -> None:
    raise ConfigError("this shard cannot go on")


def guided(transport: Transport, recipe: Recipe, path: Path) -> list[list[list[float]]]:
    """The slopes of this row's clients in every round, [rounds][clients][2 directions], the votes being given."""
    run = build_run(recipe, transport)
    assert isinstance(run, OrbitRun)
    found = []
    for t, decision in enumerate(load_any(path).decisions):
        found.append(run.clients.slopes(t, run.method.plan(t, None)).values.tolist())
        run.mover.apply([run.method.decode(decision, t)])
    assert run.problem.weights.fingerprint() == load_any(path).fingerprint
    return found


def held(row: Row, folder: str) -> dict[str, int]:
    """Bytes of the parameters that this shard holds, a family."""
    problems = {family: build_problem(recipe_of(folder, family, "mesh.check=false"), row) for family in FAMILIES}
    return {family: sum(p.nbytes for p in found.model.parameters()) for family, found in problems.items()}


def alone_and_spread(everybody: Transport, folder: str) -> dict[str, Any]:
    """Two ranks: as two rows, then as one row of two shards."""
    found: dict[str, Any] = {"slopes": {}}
    for dtype in DTYPES:
        recipe = recipe_of(folder, "opt", f"model.dtype={dtype}", "algorithm.directions=2")
        found["slopes"][dtype] = guided(everybody, recipe, Path(folder, f"opt-{dtype}.safetensors"))
    transport = spread(everybody, discover(), 2)
    found |= {"replayed": replayed(transport.row, folder), "traps": traps(transport.row, folder)}
    found["held"] = held(transport.row, folder)
    found["manifest"] = from_manifest(transport, folder, "all")
    found["undisturbed"] = run_of(transport, folder, "nobody-killed", [f"rounds={LONG}"])
    transport.close()
    return found


def three(everybody: Transport, folder: str) -> dict[str, Any]:
    """One row of three."""
    transport = spread(everybody, discover(), 3)
    found = replayed(transport.row, folder)
    transport.close()
    return found


#: Whole runs on two rows of two; all must end with the same weights on every rank, which check_every=1 sees to.
VARIANTS: dict[str, list[str]] = {
    "feedsign": [],
    "bits, two directions": ["algorithm.ballot=bits", "algorithm.directions=2"],
    "roberta": ["model.name={folder}/roberta"],
    "last layers": ['algorithm.train_only=["*.layers.2.*","*final_layer_norm*"]'],
    "local privacy": ["privacy.mechanism=local", "privacy.epsilon=1"],
    "central privacy": ["privacy.mechanism=central", "privacy.epsilon=1"],
    "zo-fedsgd": ["algorithm.name=zo-fedsgd"],
    "zo-fedsgd median": ["algorithm.name=zo-fedsgd", "algorithm.seeds=shared", "algorithm.tally=median"],
    "zo-fedavg": ["algorithm.name=zo-fedavg", "algorithm.local_steps=2"],
    "mezo": ["algorithm.name=mezo"],
    "fedkseed": ["algorithm.name=fedkseed", "algorithm.local_steps=2", "algorithm.pool_size=16"],
    "fedkseed-pro": ["algorithm.name=fedkseed-pro", "algorithm.local_steps=2", "algorithm.pool_size=16"],
    "adam": ["algorithm.update=optimizer", "algorithm.optimizer=Adam"],
    "kept": ["keep_best=true", "eval_every=4", "task.dev=20", "algorithm.lr=3e-2"],
    "attacked": ["attack.kind=collude", "attack.clients=2", "algorithm.name=zo-fedsgd"],
}

CHECKED = ("feedsign", "roberta")  # the others would load the same model once more


def run_of(transport: Transport, folder: str, name: str, more: list[str], resume: bool = False) -> list[Any]:
    """Train; what the summary says, the same on every rank."""
    check = f"mesh.check={str(name in CHECKED).lower()}"
    recipe = recipe_of(folder, "opt", "mesh.shards=2", check, *(part.format(folder=folder) for part in more))
    summary = run_recipe(Meeting(recipe, transport, discover()), Path(folder, name), resume, quiet=True).summary
    transport.barrier()
    return [summary[key] for key in ("fingerprint", "status", "rounds", "loss_after", "rows", "shards")]


def from_manifest(transport: Transport, folder: str, where: str) -> list[Any]:
    """A run of clients with files of their own, of which the row sees those in its folder."""
    with contextlib.chdir(Path(folder, where)):
        return run_of(transport, folder, f"manifest-{transport.rows}", ["clients.manifest=clients.jsonl"])


def gone(transport: Transport, folder: str) -> str:
    """What is said when a file of a client of row 1 is missing."""
    recipe = recipe_of(folder, "opt", "mesh.shards=2", "mesh.check=false", "clients.manifest=clients.jsonl")
    if transport.row.index == 1 and transport.row.shard == 0:
        Path(folder, "row1", "5.jsonl").unlink()
    transport.barrier()
    with contextlib.chdir(Path(folder, f"row{transport.row.index}")):
        return said(lambda: build_together(recipe, transport))


def live(everybody: Transport, folder: str) -> dict[str, Any]:
    """Two rows of two."""
    transport = spread(everybody, discover(), 2)
    found: dict[str, Any] = {"place": [transport.row.index, transport.row.shard, transport.rank], "slopes": {}}
    for dtype in DTYPES:
        recipe = recipe_of(folder, "opt", "mesh.shards=2", f"model.dtype={dtype}", "algorithm.directions=2")
        found["slopes"][dtype] = guided(transport, recipe, Path(folder, f"opt-{dtype}.safetensors"))
    found["runs"] = {name: run_of(transport, folder, name, more) for name, more in VARIANTS.items()}
    # A signal to a rank that does not speak for its row.
    journal, long = Path(folder, "stopped", "journal"), ["rounds=40"]
    with signalled("SIGTERM", journal, 5) if transport.rank == 3 else contextlib.nullcontext():
        found["stopped"] = run_of(transport, folder, "stopped", long)
    found["resumed"] = run_of(transport, folder, "stopped", long, resume=True)
    found["undisturbed"] = run_of(transport, folder, "undisturbed", long)
    found["manifest"] = from_manifest(transport, folder, f"row{transport.row.index}")
    found["gone"] = gone(transport, folder)
    transport.close()
    return found


LAUNCHES = {"alone_and_spread": 2, "three": 3, "live": 4}


def main(folder: str, out: str) -> None:
    """All launches, one after the other; their ranks are forked with everything imported, which saves 6 s for each."""
    os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed.inference.engine  # noqa: F401
    from transformers.models.llama import modeling_llama  # noqa: F401
    from transformers.models.mpt import modeling_mpt  # noqa: F401
    from transformers.models.opt import modeling_opt  # noqa: F401
    from transformers.models.roberta import modeling_roberta  # noqa: F401

    signal.signal(signal.SIGTERM, lambda *_: os.killpg(0, signal.SIGKILL))
    for name, n in LAUNCHES.items():
        Path(out, name).mkdir()
        place = {"MASTER_PORT": str(free_port()), "WORLD_SIZE": str(n), "LOCAL_WORLD_SIZE": str(n)}
        argv = [__file__, name, str(Path(out, name)), json.dumps([folder])]
        ranks = [_forked(place | {"RANK": str(i), "LOCAL_RANK": str(i)}, argv) for i in range(n)]
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in ranks]
        if any(codes):
            sys.exit(f"{name} ended with {codes}")


def _forked(place: dict[str, str], argv: list[str]) -> int:
    """Process id of a rank of run_ranks."""
    if pid := os.fork():
        return pid
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.environ.update(place)
        _rank(*argv)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main(*sys.argv[1:])
