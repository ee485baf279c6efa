"""Makes docs/SETTINGS.md from the sections of hpcfed/config: every setting, its values, its default, its meaning.

python tools/make_settings_page.py          writes the page
python tools/make_settings_page.py --check  compares with the page instead
"""

from __future__ import annotations

import argparse
import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

sys.path.insert(0, str(Path(__file__).parents[1]))
from hpcfed.config import METHODS, AlgorithmConfig, Recipe
from hpcfed.config.methods import SHARED

PAGE = Path(__file__).parents[1] / "docs" / "SETTINGS.md"
BOUNDS = {"Ge": ">= {ge}", "Gt": "> {gt}", "Le": "<= {le}", "Lt": "< {lt}"}
WORDS = {bool: "true, false", int: "a whole number", float: "a number", str: "text"}
HEAD = """# Settings

Every setting of a recipe, made of [settings.py](../hpcfed/config/settings.py), [task.py](../hpcfed/config/task.py) and
[methods.py](../hpcfed/config/methods.py) by `python tools/make_settings_page.py`. A recipe is a TOML file with these
sections; `--set section.key=value` overrides one. What is wrong is answered with what would be right.

A recipe's tables `[for.NAME]` hold what is otherwise when `algorithm.name` is NAME: its step size, its rounds.
"""


def main() -> int:
    """0 unless --check finds another page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        return int(PAGE.read_text(encoding="utf-8") != page())
    PAGE.write_text(page(), encoding="utf-8")
    return 0


def page() -> str:
    """docs/SETTINGS.md as it should be."""
    fields = Recipe.model_fields
    loose = {name: field for name, field in fields.items() if not is_section(field)}
    blocks = [HEAD, "## At the top\n", table(loose)]
    for name, field in fields.items():
        if is_section(field) and name != "algorithm":
            section: type[BaseModel] = field.annotation  # type: ignore[assignment]
            blocks += [f"## {name}\n", f"{section.__doc__}\n", table(section.model_fields)]
    return "\n".join([*blocks, *method_blocks()])


def method_blocks() -> Iterator[str]:
    """The section [algorithm]: what all methods have, what some share, what each has of its own."""
    common = AlgorithmConfig.model_fields
    yield "## algorithm\n"
    yield "The method, and its step. All methods have\n"
    yield table({name: field for name, field in common.items() if name not in SHARED})
    yield "Some methods have, and others refuse\n"
    yield table({name: common[name] for name in SHARED}, {name: having(name) for name in SHARED})
    of_a_kind: dict[type[AlgorithmConfig], list[str]] = {}
    for name, traits in METHODS.items():
        of_a_kind.setdefault(traits.settings, []).append(name)
    for settings, names in of_a_kind.items():
        if own := {
            n: f for n, f in settings.model_fields.items() if common.get(n) is None or f.default != common[n].default
        }:
            yield f"Of {' and '.join(f'`{name}`' for name in names)}\n"
            yield table(own)


def having(setting: str) -> str:
    """The methods that have it."""
    return ", ".join(f"`{name}`" for name, traits in METHODS.items() if traits.has(setting))


def table(fields: dict[str, FieldInfo], methods: dict[str, str] | None = None) -> str:
    """A row a setting."""
    head = ["setting", "values", "default", "meaning", *(["methods"] if methods else [])]
    rows = [head, ["---"] * len(head)]
    for name, field in fields.items():
        cells = [f"`{name}`", values(field), default(field), " ".join((field.description or "").split())]
        rows.append([*cells, *([methods[name]] if methods else [])])
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows) + "\n"


def is_section(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


def values(field: FieldInfo) -> str:
    """What a setting may be, in words."""
    return _bounded(_words(field.annotation), field.metadata)


def _words(kind: Any) -> str:
    """A type in words."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        metadata = [m for constraint in inner[1:] for m in getattr(constraint, "metadata", [constraint])]
        return _bounded(_words(inner[0]), metadata)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(_words(part) for part in inner if part is not type(None))
    if origin is list:
        return f"a list of {_words(inner[0])}"
    if origin is dict:
        return "a table"
    return WORDS[kind]


def _bounded(words: str, metadata: list[Any]) -> str:
    """The words with the bounds that pydantic checks."""
    bounds = [
        BOUNDS[type(m).__name__].format(**vars(m) if hasattr(m, "__dict__") else _slots(m))
        for m in metadata
        if type(m).__name__ in BOUNDS
    ]
    return f"{words} {', '.join(bounds)}".strip()


def _slots(constraint: Any) -> dict[str, Any]:
    return {name: getattr(constraint, name) for name in ("ge", "gt", "le", "lt") if hasattr(constraint, name)}


def default(field: FieldInfo) -> str:
    """As TOML has it; nothing where the recipe must say, or where there is none."""
    if field.is_required():
        return "required"
    return "" if field.default is None else f"`{json.dumps(field.default)}`"


if __name__ == "__main__":
    sys.exit(main())
