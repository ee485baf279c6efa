"""What a run's orbit says about itself, from the recipe, the weights and the pool of clients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..clients import Pool
from ..config import Recipe, load_method
from ..config.outside import is_outside, outside_digest
from ..orbit import Header, public_name
from ..weights import Weights

KEPT = "lowest loss on dev"  # the round that keep_best keeps


def make_header(
    recipe: Recipe,
    weights: Weights,
    kind: str,
    labels: Sequence[str],
    pool: Pool,
    fingerprint: str | None = None,
    told: Mapping[str, Any] | None = None,
) -> Header:
    """What the run's orbit says about itself.

    kind, labels: what the model was loaded as, and the names of its classes.  fingerprint: of the base model; default:
    that of the weights, then collective over the row.  told: how examples are put to the model (tasks.Task.told).
    """
    a = recipe.algorithm
    method = load_method(a.name)
    settings: dict[str, Any] = method.settings(a, pool)
    if a.update == "optimizer":
        settings |= {"optimizer": a.optimizer, "optimizer_options": a.optimizer_options}
    if is_outside(a.name):  # a run does not go on with another code than it began with
        settings |= {"code": outside_digest(a.name)}
    return Header(
        algorithm=method.name,
        run_seed=recipe.seed,
        directions=a.directions,
        lr=a.lr,
        schedule={"name": a.schedule, "warmup": a.warmup, "rounds": recipe.rounds, "final": a.final},
        distribution=a.distribution,
        rounding=recipe.rounding,
        dtype=recipe.model.dtype,
        base_model=public_name(recipe.model.name),
        base_fingerprint=fingerprint or weights.fingerprint(),
        layout_hash=weights.layout_hash,
        train_only=weights.patterns,
        payload="signs" if a.traits.votes else "floats",
        kind=kind,
        labels=labels,
        settings=settings,
        task=_task(recipe, told or {}),
    )


def _task(recipe: Recipe, told: Mapping[str, Any]) -> dict[str, Any]:
    """The task's name, of one in the user's own file without the folder; what is told of it; what was padded with.

    kept: of which round the sealed orbit is, if not of the last one.
    """
    pad = {} if recipe.model.pad_token is None else {"pad_token": recipe.model.pad_token}
    kept = {"kept": KEPT} if recipe.keep_best else {}
    return {"name": recipe.task.name.rpartition("/")[2], **told, **pad, **kept}
