"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, e.g. --set algorithm.lr=1e-4."),
]
RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="A shipped recipe (digits, ...) or a TOML file.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")]
