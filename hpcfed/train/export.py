"""A run becomes a model folder: `export`, for methods with an orbit and for those whose weights are saved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..config import load_recipe
from ..errors import ConfigError, RunFolderError
from ..orbit import JOURNAL, ORBIT, WEIGHTS
from ..runs.read import RECIPE, paths_of
from ..weights.checkpoint import load_weights, read_facts
from .digests import base_changes
from .meet import one_row
from .problem import build_base
from .replay import Replayed, free_folder, replay, save


def export(run: str | Path, out: str | Path, *, base: str | None = None) -> Replayed:
    """Write the model that a run has come to, for transformers' pipelines; what `hpcfed export` does.

    run: its folder.  out: a new folder.  base: where the base model is, if no longer where the recipe says.

    Collective: all ranks of the launch are the shards of one model.  Raises HpcfedError (alone; on several ranks see
    meet.py).
    """
    run, out = Path(run), Path(out)
    if not (run / RECIPE).is_file():
        raise RunFolderError(f"{run}: not a run folder (no {RECIPE} in it)")
    paths, notes = paths_of(run)
    recipe = load_recipe(str(run / RECIPE), [*paths, *([f"model.name={base}"] if base else [])])
    model = recipe.model
    if (run / ORBIT).exists() or (run / JOURNAL).exists():
        done = replay(
            run, model.name, out=out, revision=model.revision, pad_token=model.pad_token, method=recipe.algorithm.name
        )
        return replace(done, notes=(*notes, *done.notes))
    header = read_facts(run / WEIGHTS)
    with one_row() as row:
        if row.shards > 1:
            raise ConfigError(f"{row.shards} ranks: saved weights are read whole; use one rank")
        free_folder(out, row)
        loaded, weights = build_base(header, model.name, model.revision, model.pad_token, row)
        rounds, _ = load_weights(run / WEIGHTS, weights)
        done = Replayed(loaded, rounds, weights.fingerprint(), (*notes, *base_changes(run, model)))
        return save(done, header, weights, model, row, out, "hpcfed export RUN")
