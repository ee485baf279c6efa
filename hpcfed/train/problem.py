"""A model and a task that fit each other, loaded from what a recipe or an orbit names."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..config import Entry, ModelConfig, Recipe
from ..errors import ConfigError, first_line
from ..model import checkpoint_names, head_labels, load_model, load_processor, load_shard, model_kind, without_sums
from ..model.decode import Generate, make_generate
from ..model.head import Forward, make_forward
from ..noise import set_threads
from ..orbit import Header
from ..privacy import MECHANISMS
from ..tasks import Example, More, Task, kind_of, load_task
from ..tasks.labels import spell
from ..transport.row import Row
from ..weights import Weights
from .trial import APART, check_tokens, find_way


@dataclass(eq=False)
class Problem:
    """A model and a task that fit each other, with the trained weights addressed. processor: tokenizer or None.

    asked: how the model is asked for logits, the same on every row.  notes: what the user should know of it.
    generate: greedy decoding, of a causal model.
    """

    model: nn.Module
    processor: Any
    task: Task
    weights: Weights
    forward: Forward
    kind: str
    asked: str = ""
    notes: list[str] = field(default_factory=list)
    generate: Generate | None = None


def build_problem(recipe: Recipe, row: Row | None = None, hosted: Sequence[Entry] = ()) -> Problem:
    """Load data and model of a recipe, and find out how the model must be asked (trial.py).

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
        head = head_labels(recipe.model, kind)
        more = More(recipe.clients.id_column, recipe.clients.class_column)
        return kind, processor, load_task(recipe.task, kind, processor, more, sources, head)

    kind, processor, task = row.together(data)
    may_tell = MECHANISMS[recipe.privacy.mechanism].may_tell
    task = replace(task, device=row.device, tell=may_tell)
    model, slices = load_shard(recipe.model, kind, task.labels, row)
    weights = Weights(model, recipe.algorithm.train_only, slices, row, checkpoint_names(model))
    row.together(lambda: check_tokens(recipe.model.name, model, processor, task))
    forward = make_forward(model, row, task.keep_last, task.head_rows)
    problem = Problem(model, processor, task, weights, forward, kind)
    read = {split: reading for split, reading in task.readings.items() if reading.files}
    problem.notes += [reading.line(split, may_tell or split in task.splits) for split, reading in read.items()]
    problem.notes += task.notes + (task.overlaps if may_tell else [])
    if row.shards > 1 and recipe.mesh.check:
        problem.notes += compare_with_whole_model(recipe, problem)
    pad = getattr(processor, "pad_token_id", None)
    way = find_way(recipe.model.name, model, task, few_examples(recipe, task), row, pad or 0)
    problem.task, problem.forward, problem.asked = way.task, way.forward, way.name
    if kind == "causal-lm":  # padded on the right: the model does not leave out padding on the left
        problem.generate = make_generate(model, row, padding=way.task.form.right is not None)
    problem.notes += lost_notes(recipe, task)
    return problem


def lost_notes(recipe: Recipe, task: Task) -> list[str]:
    """How many texts are longer than the model reads, or say nothing to it; a private run tells no client's."""
    parts = {"training examples": task.train} if MECHANISMS[recipe.privacy.mechanism].may_tell else {}
    parts |= {f"examples of {split}": examples for split, examples in task.splits.items()}
    notes = []
    for what, examples in parts.items():
        lost, of = examples.lost, f"of {len(examples):,} {what}"
        if lost.cut:
            notes.append(f"{lost.cut:,} {of} are cut to {lost.most} tokens (task.max_length)")
        if lost.unknown:
            notes.append(f"{lost.unknown:,} {of} have no text, or none of which the tokenizer knows a token")
    if parts.get("training examples") is task.train and recipe.clients.manifest is None:
        counts = np.bincount(task.train.labels, minlength=len(task.labels))
        if absent := [name for name, count in zip(task.labels, counts, strict=False) if not count]:
            notes.append(f"no training example is of class {spell(absent)}")
    return notes


@torch.inference_mode()
def compare_with_whole_model(recipe: Recipe, problem: Problem) -> list[str]:
    """Collective over the row: its shards hold, and compute, what the whole model does, which shard 0 loads for this.

    The same weights by fingerprint; the same logits on some examples, up to the rounding of sums in another order.
    Returns a note on shard 0 if the whole model is too large for that.  Raises ConfigError on every shard alike.
    """
    row, task = problem.weights.row, problem.task
    inputs = few_inputs(recipe, task)

    def compute() -> None:
        """If it fails, it does on each shard by itself, so that none waits for another's sums."""
        try:
            with without_sums():
                problem.forward(inputs)
        except Exception as e:  # whatever a model raises whose parts do not fit each other
            raise ConfigError(_unfit(row, f"cannot compute ({type(e).__name__}: {first_line(e)})")) from None

    row.together(compute)
    logits, fingerprint = problem.forward(inputs).double(), problem.weights.fingerprint()
    affordable = _affordable(problem.weights, problem.model, row.beside)

    def compare() -> str:
        if row.shard or not affordable:
            return ""
        whole = load_model(recipe.model, problem.kind, task.labels).to(row.device)
        own = Weights(whole, recipe.algorithm.train_only, names=checkpoint_names(whole))
        if own.fingerprint() != fingerprint:
            return "hold other weights than the whole model"
        expected = make_forward(whole, Row(), task.keep_last, task.head_rows)(inputs).double()
        spread, apart = (expected - expected.mean()).norm(), (logits - expected).norm()
        most = APART[next(whole.parameters()).dtype]
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
    elements = {name: p.numel() for name, p in model.named_parameters()}
    elements |= {name: math.prod(part.shape) for name, part in weights.slices.items()}
    size = sum(elements.values()) * next(model.parameters()).element_size()
    return free is None or 4 * copies * size <= 1024 * int(free[1])


def few_inputs(recipe: Recipe, task: Task) -> dict[str, Tensor]:
    """few_examples as a batch's inputs."""
    return task.collate(few_examples(recipe, task)).inputs


def few_examples(recipe: Recipe, task: Task) -> list[Example]:
    """Three examples that every row has, not the clients' where each has a file of its own; a short and a long one."""
    same = task.train if recipe.clients.manifest is None else next(iter(task.splits.values()))
    first = sorted((same[i] for i in range(min(64, len(same)))), key=task.tokens)
    return [first[0], first[len(first) // 2], first[-1]]


def build_base(
    header: Header, name: str, revision: str | None, pad_token: str | None, row: Row | None = None
) -> tuple[nn.Module, Weights]:
    """The base model of an orbit, loaded from `name` as the run loaded it, and its weights. Collective over the row."""
    row = row or Row()
    config = ModelConfig(name=name, dtype=header.dtype, revision=revision, pad_token=pad_token)  # type: ignore[arg-type]
    model, slices = load_shard(config, header.kind, header.labels, row)
    weights = Weights(model, header.train_only, slices, row, checkpoint_names(model))
    weights.follow(header.layout_hash)
    return model, weights
