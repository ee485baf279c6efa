"""Parquet files, and the folders that the datasets library's save_to_disk writes: columns with types of their own.

Promise  types are the file's. Only columns that are asked for are read.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import DataError, first_line
from .images import decoded
from .lines import endings, opened
from .paths import feature_at
from .rows import Rows
from .tree import Node

DICT, STATE = "dataset_dict.json", "state.json"  # a folder of save_to_disk has one of them
_PICTURE = {"bytes", "path"}


class ArrowRows(Rows):
    """Rows of an Arrow table, read when they are asked for.  features: what the datasets library says of columns."""

    def __init__(self, where: str, schema: pa.Schema, count: int, read: Any) -> None:
        super().__init__(where, schema.names, count)
        self._read = read
        self._pictures: Any = None
        self._features = _features(schema.metadata or {})
        pictures: list[str] = []
        for entry in schema:
            feature = self._features.get(entry.name)
            named = isinstance(feature, dict) and feature.get("_type") == "Image"
            parts = {part.name for part in entry.type} if pa.types.is_struct(entry.type) else set()
            if named or parts == _PICTURE:
                pictures.append(entry.name)
        self.image = next((name for name in ("image", "img") if name in pictures), pictures[0] if pictures else None)
        if len(pictures) > 1 and self.image not in ("image", "img"):
            raise DataError(
                f"{where}: columns {' and '.join(map(repr, pictures))} hold images; call the one that is meant 'image'"
            )

    def column(self, name: str) -> Sequence[Any]:
        if self.names.count(name) > 1:
            raise DataError(f"{self.where}: has column {name!r} {self.names.count(name)} times")
        column = self._column(name)
        try:
            return column.to_pylist()
        except UnicodeDecodeError as e:
            row = next(i for i in range(len(column)) if not _decodes(column, i))
            raise DataError(f"{self.where}, row {row + 1}: column {name!r} is not UTF-8 text: {e.reason}") from None

    def class_names(self, name: str) -> list[str] | None:
        feature = feature_at(self._features, name)
        names = feature.get("names") if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" else None
        return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None

    def picture(self, i: int) -> Any:
        if self._pictures is None:
            assert self.image is not None
            self._pictures = self._column(self.image)
        value = self._pictures[i].as_py()
        value = {"bytes": value} if isinstance(value, bytes) else value
        if not isinstance(value, dict) or value.get("bytes") is None:
            raise OSError("the image is missing, or is a path to a file elsewhere")
        return decoded(io.BytesIO(value["bytes"]), "")

    def _column(self, name: str) -> Any:
        try:
            return self._read(name)
        except (pa.ArrowException, OSError) as e:
            raise DataError(f"{self.where}: column {name!r} cannot be read: {first_line(e)}") from None


def _features(metadata: Mapping[bytes, bytes]) -> dict[str, Any]:
    """What the datasets library says of columns; nothing where it is not as that library writes it."""
    try:
        told = json.loads(metadata.get(b"huggingface", b"{}"))
    except (ValueError, RecursionError):
        return {}
    for key in ("info", "features"):
        told = told.get(key) if isinstance(told, dict) else None
    return told if isinstance(told, dict) else {}


def _decodes(column: Any, i: int) -> bool:
    try:
        column[i].as_py()
    except UnicodeDecodeError:
        return False
    return True


def read_parquet(file: Node, wanted: Sequence[str]) -> Rows:
    """The rows of a Parquet file."""
    with opened(file) as raw:
        packed = endings(file.name)[2]
        source = io.BytesIO(raw.read()) if packed else file.open()
    try:
        table = pq.ParquetFile(source)
        return ArrowRows(
            file.where,
            table.schema_arrow,
            table.metadata.num_rows,
            lambda name: table.read(columns=[name]).column(name),
        )
    except (pa.ArrowException, OSError) as e:
        raise DataError(f"{file.where}: not readable as parquet: {first_line(e)}") from None


def is_saved(folder: Node) -> bool:
    """Whether save_to_disk wrote the folder."""
    return any(node.name in (DICT, STATE) for node in folder.children())


def saved_splits(folder: Node) -> dict[str, Node] | None:
    """Split -> its folder; None if the folder holds one data set without a name."""
    inside = {node.name: node for node in folder.children()}
    if DICT not in inside:
        return None
    names = _json(inside[DICT]).get("splits")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{inside[DICT].where}: names no splits")
    if missing := [name for name in names if name not in inside]:
        raise DataError(f"{inside[DICT].where}: names the split {missing[0]!r}, but there is no such folder")
    return {name: inside[name] for name in names}


def saved_files(folder: Node) -> list[Node]:
    """The files that hold the rows of one data set, in order."""
    inside = {node.name: node for node in folder.children()}
    if STATE not in inside:
        raise DataError(f"{folder.where}: has no {STATE}, as a folder of save_to_disk has")
    entries = _json(inside[STATE]).get("_data_files")
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("filename"), str) for entry in entries
    ):
        raise DataError(f"{inside[STATE].where}: names no files as save_to_disk does")
    names = [entry["filename"] for entry in entries]
    if missing := [name for name in names if name not in inside]:
        raise DataError(f"{folder.where}: {missing[0]} is missing, which {STATE} names")
    return [inside[name] for name in names]


def read_arrow(file: Node, wanted: Sequence[str]) -> Rows:
    """The rows of a file in Arrow's stream format, as save_to_disk writes it."""
    with opened(file):
        pass
    try:
        with file.open() as raw:
            table = pa.ipc.open_stream(raw).read_all()
    except (pa.ArrowException, OSError) as e:
        raise DataError(f"{file.where}: not readable as Arrow's stream format: {first_line(e)}") from None
    return ArrowRows(file.where, table.schema, table.num_rows, table.column)


def _json(file: Node) -> dict[str, Any]:
    with opened(file) as raw:
        try:
            value = json.loads(raw.read())
        except (ValueError, RecursionError) as e:
            raise DataError(f"{file.where}: not JSON: {first_line(e)}") from None
    if not isinstance(value, dict):
        raise DataError(f"{file.where}: no JSON object")
    return value
