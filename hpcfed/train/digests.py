"""What must stay as it is while a run goes on, beside the training data and the weights: digests of it, by what it is.

Promise  the same on every row, and on every machine that reads the same files
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from ..config import ModelConfig, Recipe
from ..config.outside import is_outside, outside_digest
from ..model.digest import config_digest
from ..runs.read import PARTITION, read_json
from .problem import Problem, few_inputs

CONFIG = "the model's config.json"


def digests(recipe: Recipe, problem: Problem) -> dict[str, str]:
    """Of each evaluation split, what the model is shown of an example, its config.json, and a reward of the user's."""
    found = {f"evaluation split {split!r}": examples.digest() for split, examples in problem.task.splits.items()}
    h = hashlib.blake2b(repr(problem.task.head_rows).encode(), digest_size=16)
    for name, tensor in sorted(few_inputs(recipe, problem.task).items()):
        array = tensor.cpu().contiguous().numpy()
        h.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    found["what the model is shown of an example (by tokenizer, image processor, prompt)"] = h.hexdigest()
    if config := config_digest(recipe.model):
        found[CONFIG] = config
    if is_outside(recipe.task.objective):
        found["the file of task.objective"] = outside_digest(recipe.task.objective)
    return found


def changes(run: Path, now: Mapping[str, str]) -> list[str]:
    """What of `now` is not as it was when the run in this folder began."""
    known = read_json(run / PARTITION).get("digests", {}) if (run / PARTITION).is_file() else {}
    return [what for what, digest in now.items() if known.get(what, digest) != digest]


def base_changes(run: Path, base: ModelConfig) -> list[str]:
    """A note if the base model's config.json is not that of the run in this folder: weights alone make no model."""
    now = {CONFIG: digest} if (digest := config_digest(base)) else {}
    return [
        f"{what} changed since the run in {run} began: with these weights it makes another model than the run's"
        for what in changes(run, now)
    ]
