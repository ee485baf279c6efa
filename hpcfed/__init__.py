"""hpcfed: federated zeroth-order fine-tuning at one bit a round, under torchrun, mpirun, srun or alone.

    recipe = hpcfed.load_recipe("digits", ["rounds=300"])     a shipped name or a TOML file, with overrides
    result = hpcfed.train(recipe, out="runs/first")           .summary, .orbit, .model
    hpcfed.evaluate("runs/first")                             {"test": Score(value=..., loss=..., examples=...)}
    hpcfed.replay("runs/first", base="digits-vit").model      the same model from its orbit alone
    hpcfed.export("runs/first", out="tuned")                  a folder for transformers' pipelines
    hpcfed.read_orbit("runs/first")                           .header, .rounds, .decisions

The hpcfed command is a thin layer over these. They load torch when they are first used, not on import.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import Recipe as Recipe
    from .config import load_recipe as load_recipe
    from .orbit import Orbit as Orbit
    from .orbit import load_any as read_orbit
    from .tasks.evaluate import Score as Score
    from .train.export import export as export
    from .train.replay import Replayed as Replayed
    from .train.replay import replay as replay
    from .train.score import evaluate as evaluate
    from .train.start import Result as Result
    from .train.start import train as train

__version__ = "0.1.0"
__all__ = [
    "Orbit",
    "Recipe",
    "Replayed",
    "Result",
    "Score",
    "evaluate",
    "export",
    "load_recipe",
    "read_orbit",
    "replay",
    "train",
]

#: Public name -> where it is.  `train` is the package of that name, which can be called.
_PUBLIC = {
    "Orbit": "orbit:Orbit",
    "Recipe": "config:Recipe",
    "Replayed": "train.replay:Replayed",
    "Result": "train.start:Result",
    "Score": "tasks.evaluate:Score",
    "evaluate": "train.score:evaluate",
    "export": "train.export:export",
    "load_recipe": "config:load_recipe",
    "read_orbit": "orbit:load_any",
    "replay": "train.replay:replay",
}

# torch's OpenMP threads would otherwise spin after every operation, on the cores where directions are drawn next (and
# where other ranks of the node compute). It must be said before torch is imported; a user's own setting wins.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def __getattr__(name: str) -> Any:
    if name == "train":
        return import_module(".train", __name__)
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _PUBLIC[name].partition(":")
    return getattr(import_module(f".{module}", __name__), attribute)
