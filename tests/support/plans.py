"""Plans of the recipe that plans are tested with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hpcfed.config import load_recipe
from hpcfed.plan.plan import make_plan


def planned(folder: Path, *settings: str, tokens: int | None = 20) -> Any:
    return make_plan(load_recipe("sst2-opt-125m", [f"model.name={folder}", *settings]), tokens)
