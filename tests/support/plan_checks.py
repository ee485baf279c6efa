"""What rounds really take, against what hpcfed.plan says: run as a program, it prints a line of JSON a case.

    python -m tests.support.plan_checks FOLDER NAME ...

An interpreter that has imported everything forks for every case, so that each starts with the same small memory; a tiny
run comes first, since a child does not count libraries as its own until it uses them. Measured is the peak of resident
memory in the rounds (Linux resets it on demand) above that start; loading a model takes more for a moment, and is not
part of the round. MALLOC makes the C library give back what is freed: left alone it keeps up to 64 MB of it.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import OPTConfig, OPTForCausalLM, RobertaConfig, RobertaForMaskedLM

from hpcfed.config import Recipe, load_recipe
from hpcfed.plan.plan import make_plan
from hpcfed.train.build import build_run
from hpcfed.train.round import State
from hpcfed.transport.choose import choose
from hpcfed.transport.launch import Launch
from tests.support.small import save_tiny_folder, tiny_sst2, tiny_tokenizer

ROUNDS = 2
MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(2**18)}  # of glibc; makes the threshold a fixed one
OPT30 = {"hidden_size": 512, "ffn_dim": 2048, "num_hidden_layers": 6, "num_attention_heads": 8, "vocab_size": 20_000}
OPT60 = {"hidden_size": 768, "ffn_dim": 3072, "num_hidden_layers": 4, "num_attention_heads": 12, "vocab_size": 40_000}
ROBERTA = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 6, "num_attention_heads": 8}
CLIENTS = ["clients.count=4", "clients.group=4", "clients.batch=8", "mesh.threads=1"]

ADAM = "algorithm.optimizer=Adam"

#: name -> (shape, settings); the model is what stands before a comma
CASES: dict[str, tuple[dict[str, int], list[str]]] = {
    "opt-30m": (OPT30, []),
    "opt-30m, 16 bits": (OPT30, ["model.dtype=bfloat16"]),
    "roberta-30m": (ROBERTA, []),
    "opt-60m": (OPT60, []),
    "opt-30m, adam": (OPT30, ["algorithm.update=optimizer", ADAM]),
    "opt-30m, walk": (OPT30, ["algorithm.name=fedkseed", "algorithm.local_steps=2"]),
    "opt-30m, fedsgd": (OPT30, ["algorithm.name=fedsgd"]),
    # Of two local steps a client: the second meets the optimiser's state that the first has left.
    "opt-30m, fedavg": (OPT30, ["algorithm.name=fedavg", ADAM, "algorithm.lr=1e-5", "task.train_limit=64"]),
}


def kind_of(name: str) -> str:
    return name[: name.index("-")]


def make(folder: Path, name: str) -> None:
    """A folder with the model of a case, weights random."""
    model, kind = folder / name.partition(",")[0], kind_of(name)
    if model.exists():
        return
    ids = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "max_position_embeddings": 130}
    shape = CASES[name][0]
    if kind == "opt":
        made: Any = OPTForCausalLM(OPTConfig(**shape, word_embed_proj_dim=shape["hidden_size"], **ids))
    else:
        made = RobertaForMaskedLM(RobertaConfig(**shape, vocab_size=20_000, type_vocab_size=1, **ids))
    made.save_pretrained(model)
    tiny_tokenizer(kind).save_pretrained(model)


def recipe_of(folder: Path, name: str, model: Path | None = None) -> Recipe:
    """The recipe of a case, with data of a hundred short sentences; model: another than its own."""
    model, data = model or folder / name.partition(",")[0], folder / "data" / "sst2"
    return load_recipe("sst2-opt-125m", [f"model.name={model}", f"task.data={data}", *CLIENTS, *CASES[name][1]])


def resident(key: str) -> int:
    """Bytes: VmRSS now, or VmHWM at the most."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return 1024 * int(line.split()[1])


def warm_up(folder: Path, name: str) -> None:
    """A round of the case with a tiny model: import, compile and touch what that needs."""
    tiny = save_tiny_folder(folder / "tiny", kind_of(name))
    build_run(recipe_of(folder, name, tiny), choose(Launch())).round(0, State())
    gc.collect()


def measure(folder: Path, name: str) -> dict[str, float]:
    """One run in this process; what it took, and what the plan says."""
    recipe = recipe_of(folder, name)
    warm_up(folder, name)
    start = resident("VmRSS")
    run = build_run(recipe, choose(Launch()))
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
    for t in range(ROUNDS):
        run.round(t, State())
    took = resident("VmHWM") - start
    longest = max(run.problem.task.tokens(run.problem.task.train[i]) for i in range(len(run.problem.task.train)))
    return {"took": took, "planned": make_plan(recipe, tokens=longest).memory.round}


def forked(folder: Path, name: str) -> dict[str, float]:
    """`measure` in a child of this process."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(theirs, json.dumps(measure(folder, name)).encode())
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        found: dict[str, float] = json.loads(pipe.read())
    os.waitpid(child, 0)
    return found


def main() -> None:
    """All cases named on the command line."""
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    torch.set_num_threads(1)  # a pool of threads would not survive the fork
    tiny_sst2(folder / "data", train=128)
    for name in names:
        warm_up(folder, name)
        make(folder, name)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # or the cases would live in memory that the models above have left
    for name in names:
        print(json.dumps({"name": name, **forked(folder, name)}), flush=True)


if __name__ == "__main__":
    main()
