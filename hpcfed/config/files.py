"""Recipes as TOML files and --set overrides, in and out; what is wrong reaches the user as one ConfigError.

A message names the setting, the value, what is allowed and the nearest real name.
"""

from __future__ import annotations

import copy
import difflib
import json
import re
import sys
import tomllib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from ..errors import ConfigError, did_you_mean, not_utf8
from .manifest import read_manifest
from .methods import METHODS, SHARED, AlgorithmConfig, find_traits
from .outside import is_outside
from .settings import DEALS, Recipe, recipe_class

_BARE = re.compile(r"[A-Za-z0-9_-]+")  # a key that TOML takes without quotes
#: What a recipe says of its own data gives way to --set clients.manifest=FILE.
DISPLACED = (
    *(("clients", setting) for setting in ("count", "partition", *DEALS)),
    ("task", "train_limit"),
    ("task", "few_shot"),
)


def shipped() -> dict[str, Path]:
    """Recipes that come with the package: name -> file."""
    folder = Path(str(resources.files("hpcfed") / "recipes"))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def load_recipe(name_or_file: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe called `name_or_file` (a shipped name or a TOML file) with `section.key=value` overrides applied.

    A recipe's tables [for.NAME] hold what is otherwise when algorithm.name is NAME (its step size, its rounds).
    Raises ConfigError for anything unknown, of a wrong type or out of range.
    """
    file = Path(name_or_file)
    if name_or_file in shipped():
        file = shipped()[name_or_file]
    elif not file.is_file():
        raise ConfigError(
            f"recipe {name_or_file!r} is neither a file nor a shipped recipe{did_you_mean(name_or_file, shipped())}"
        )
    try:
        content = file.read_bytes()
        raw = tomllib.loads(content.decode("utf-8-sig").replace("\r\n", "\n"))  # Excel and Notepad begin with a mark
    except UnicodeDecodeError as e:
        raise ConfigError(f"recipe {file}: {not_utf8(content, e.start)}") from None
    except (tomllib.TOMLDecodeError, OSError) as e:
        raise ConfigError(f"recipe {file}: not a readable TOML file: {e}") from None
    tuned = raw.pop("for", {})
    for name in tuned:
        if name not in METHODS:
            raise ConfigError(f"recipe {file}: no algorithm for.{name}{did_you_mean(name, METHODS)}")
    chosen = copy.deepcopy(raw)
    for item in overrides:
        _override(chosen, item)
    algorithm = chosen.get("algorithm")
    _merge(raw, tuned.get(algorithm.get("name"), {}) if isinstance(algorithm, dict) else {})
    if any(item.partition("=")[0].strip() == "clients.manifest" for item in overrides):
        for section, setting in DISPLACED:
            if isinstance(raw.get(section), dict):
                raw[section].pop(setting, None)
    for item in overrides:
        _override(raw, item)
    return validate(raw)


def _merge(into: dict[str, Any], changes: dict[str, Any]) -> None:
    """Sections are merged key by key, everything else is replaced."""
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def validate(raw: dict[str, Any]) -> Recipe:
    """A Recipe from nested dictionaries; all that is wrong in one ConfigError.

    With clients.manifest, the number of clients is read there unless clients.count gives it.
    """
    clients = raw.get("clients")
    if isinstance(clients, dict) and isinstance(name := clients.get("manifest"), str):
        count = {} if "count" in clients else {"count": len(read_manifest(name).clients)}
        raw = raw | {"clients": {"partition": "manifest"} | count | clients}
    known = recipe_class(_settings_class(raw.get("algorithm")))
    try:
        return known.model_validate(raw)
    except ValidationError as e:
        problems: dict[str, list[str]] = {}
        for error in e.errors():
            what, why = _explain(error, known)
            problems.setdefault(what, []).append(why)
        lines = [what + " or ".join(dict.fromkeys(why)) for what, why in problems.items()]
        raise ConfigError("\n".join(lines)) from None


def _settings_class(section: Any) -> type[AlgorithmConfig]:
    """That of the method which a recipe's section [algorithm] names, if it names one that there is."""
    name = section.get("name", AlgorithmConfig.model_fields["name"].default) if isinstance(section, dict) else None
    if not isinstance(name, str) or not (name in METHODS or is_outside(name)):
        return AlgorithmConfig
    return find_traits(name).settings


def _override(raw: dict[str, Any], item: str) -> None:
    key, equals, text = item.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {item!r}: write it as section.key=value, e.g. --set algorithm.lr=1e-4")
    if not item.isascii() and any("\udc80" <= c <= "\udcff" for c in item):  # how Python keeps such bytes
        raise ConfigError(
            f"--set {item!a}: its bytes are no text in {sys.getfilesystemencoding()}, so no recipe.toml can hold them; "
            "set LC_ALL=C.UTF-8, or give the file a name in UTF-8"
        )
    *path, last = key.strip().split(".")
    for part in path:
        raw = raw.setdefault(part, {})
        if not isinstance(raw, dict):
            raise ConfigError(f"--set {item!r}: {part} is a setting, not a section")
    try:
        raw[last] = tomllib.loads(f"v = {text.strip()}")["v"]
    except tomllib.TOMLDecodeError:
        raw[last] = text.strip()  # a bare word is a string: --set algorithm.schedule=cosine


def _section(recipe: type[Recipe], path: Sequence[str]) -> type[BaseModel] | None:
    model: Any = recipe
    for part in path:
        field = model.model_fields.get(part) if isinstance(model, type) and issubclass(model, BaseModel) else None
        model = field.annotation if field else None
    return model if isinstance(model, type) and issubclass(model, BaseModel) else None


def _explain(error: Any, recipe: type[Recipe]) -> tuple[str, str]:
    """What an error is about, "name=value: ", and what would be right: one for each branch of a union of types."""
    path = [str(part) for part in error["loc"]]
    sections = [_section(recipe, path[: i + 1]) for i in range(len(path))]
    depth = next((i for i, section in enumerate(sections) if not section), len(path) - 1)
    branch, path = ".".join(path[depth + 1 :]), path[: depth + 1]
    name = ".".join(path)
    if error["type"] == "extra_forbidden":
        section = _section(recipe, path[:-1])
        where = "".join(f"{part}." for part in path[:-1])
        near = difflib.get_close_matches(path[-1], section.model_fields, n=1, cutoff=0.5) if section else []
        known = ", ".join(sorted(where + field for field in section.model_fields)) if section else ""
        hint = f"; did you mean {where}{near[0]}?" if near else ""
        return f"{name} is not a setting", f"{hint} (known: {known})"
    if error["type"] == "missing":
        return f"{name} is missing", f"; the recipe or --set {name}=... must give it"
    if error["type"] == "value_error":
        return str(error["ctx"]["error"]), ""
    value = f"{name}={error['input']!r}: "
    if branch in ("int", "float"):  # the branches of int | float
        return value, "input should be a number"
    return value, error["msg"][0].lower() + error["msg"][1:]


def to_toml(recipe: Recipe) -> str:
    """The resolved recipe as TOML, all defaults written out.

    Left out are settings that are None, and those of [algorithm] that its method does not have.
    """
    plain, traits = recipe.model_dump(exclude_none=True), recipe.algorithm.traits
    for setting in SHARED:
        if not traits.has(setting):
            plain["algorithm"].pop(setting, None)
    lines = [f"{key} = {inline(value)}" for key, value in plain.items() if not isinstance(value, dict)]
    for section, values in plain.items():
        if isinstance(values, dict):
            lines += ["", f"[{section}]"] + [f"{key} = {inline(value)}" for key, value in values.items()]
    return "\n".join(lines) + "\n"


def inline(value: Any) -> str:
    """A setting's value as TOML writes it on one line."""
    if isinstance(value, float):
        return repr(value)  # 1e-05 and 0.5 are both TOML
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(key)} = {inline(v)}" for key, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(inline, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # JSON allows a bare DEL, TOML does not


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else inline(key)
