"""What a run's orbit says about itself, from the recipe, the weights and the pool of clients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..clients import Pool
from ..config import POOLED, AlgorithmConfig, Recipe
from ..orbit import Header, public_name
from ..weights.weights import Weights


def make_header(
    recipe: Recipe, weights: Weights, kind: str, labels: Sequence[str], pool: Pool, fingerprint: str | None = None
) -> Header:
    """What the run's orbit says about itself.

    kind, labels: what the model was loaded as, and the names of its classes.  fingerprint: of the base model; default:
    that of the weights, then collective over the row.
    """
    a = recipe.algorithm
    return Header(
        algorithm=a.name,
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
        train_only=a.train_only,
        payload="signs" if a.name == "feedsign" else "floats",
        kind=kind,
        labels=labels,
        settings=_settings(recipe.algorithm, pool),
    )


def _settings(a: AlgorithmConfig, pool: Pool) -> dict[str, Any]:
    """What the algorithm's file lists under Settings, for the orbit's header."""
    k = pool.cohort_size
    settings: dict[str, Any] = {}
    if a.name == "zo-fedsgd":
        settings = {"cohort": k, "seeds": a.seeds, "tally": a.tally, "trim": a.trim}
        settings["width"] = a.directions * (k if a.seeds == "own" else 1)
    elif a.name == "zo-fedavg":
        steps = pool.most_steps() if a.local_steps == "epoch" else a.local_steps or 5
        batches = "epoch" if a.local_steps == "epoch" else "step"
        settings = {"cohort": k, "steps": steps, "batches": batches, "width": k * steps}
    elif a.name in POOLED:
        settings = {"cohort": k, "pool": a.pool_size, "steps": a.local_steps or 200, "width": a.pool_size}
        if a.name == "fedkseed-pro":
            settings |= {"clip": a.history_clip, "width": 3 * a.pool_size}
    if a.update == "optimizer":
        settings |= {"optimizer": a.optimizer, "optimizer_options": a.optimizer_options}
    return settings
