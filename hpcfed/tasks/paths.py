"""Columns inside columns: "answers.text" is what the objects of the column "answers" call "text".

Through a list of objects a path gives the list of what each of them has, through a dict of lists what it says itself.

Promise  a column whose name is there with its dots is that column; what an object does not have is missing, as a column
         is that a row does not have
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import did_you_mean


def root(name: str, names: Sequence[str]) -> str:
    """The column of `names` that a path begins with: the longest that is there; else the path's first part."""
    return next((head for head in _heads(name) if head in names), name.split(".")[0])


def roots(names: Sequence[str]) -> list[str]:
    """All that columns may be called in a file which these paths begin with."""
    return list(dict.fromkeys(head for name in names for head in _heads(name)))


def _heads(name: str) -> list[str]:
    """The path and all that it begins with, the longest first."""
    parts = name.split(".")
    return [".".join(parts[:n]) for n in range(len(parts), 0, -1)]


def inside(value: Any, path: Sequence[str]) -> Any:
    """What lies at `path` in a value; None where it is missing. ValueError says what is no object on the way."""
    if not path or value is None:
        return value
    if isinstance(value, list):
        return [inside(part, path) for part in value]
    if not isinstance(value, dict):
        raise ValueError(f"is {value!r:.40}, no object that has {path[0]!r}")
    return inside(value.get(path[0]), path[1:])


def unknown(values: Sequence[Any], path: Sequence[str]) -> str:
    """The part of `path` that no object on the way has, with what they have; nothing if there is none."""
    for part in path:
        objects = [found for value in values for found in _objects(value)]
        keys = {str(key): None for found in objects for key in found}
        if keys and part not in keys:
            return f"{part!r}{did_you_mean(part, list(keys))}"
        values = [found.get(part) for found in objects]
    return ""


def _objects(value: Any) -> list[dict[str, Any]]:
    """The object, or those in a list."""
    if isinstance(value, list):
        return [found for part in value for found in _objects(part)]
    return [value] if isinstance(value, dict) else []


def feature_at(features: Mapping[str, Any], name: str) -> Any:
    """What the datasets library says of a column, or of what lies inside one: its feature, or that as JSON, or None."""
    outer = root(name, list(features))
    found = features.get(outer)
    for part in name.removeprefix(outer).split(".")[1:]:
        while (element := _element(found)) is not None:
            found = element
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _element(feature: Any) -> Any:
    """What a feature says of the elements of a list; None if it is none."""
    if isinstance(feature, list):
        return feature[0] if feature else None
    if isinstance(feature, dict):
        return feature.get("feature") if "_type" in feature else None
    return getattr(feature, "feature", None)
