"""Rows of a data set, by datasets.load_dataset: a hub name, a local folder, a file, or a pattern of files.

    stanfordnlp/sst2, nyu-mll/glue:rte   the hub; what follows the colon is the configuration
    FOLDER                               holds SPLIT.jsonl (.json, .csv, .tsv, .parquet), SPLIT-00000-of-00002.parquet,
                                         or images: SPLIT/CLASS/*.jpg, or SPLIT.zip with CLASS/*.jpg in it
    FILE, "PATTERN*"                     one split a stem as in a folder; stems that name no split are all training data

Promise  local files are read through a temporary cache of this process: nothing stale is ever reused, and ranks that
         load the same files at the same time do not meet. Hub data sets use the hub's own cache and its locks.
"""

from __future__ import annotations

import json
import re
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError, did_you_mean, first_line

BUILDERS = {
    ".jsonl": "json",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".zip": "imagefolder",
}
_NO_SPLIT = {"labels.json", "dataset_infos.json", "dataset_dict.json"}  # they describe the data
_PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff"}
_SHARD = re.compile(r"[-_.]\d+([-_]of[-_]\d+)?$")  # train-00000-of-00002, train_1
_LINE = re.compile(r"in line (\d+)")  # how the CSV reader says where


@dataclass(frozen=True)
class Split:
    """Rows of one split.  where: how messages call it.  classes: image folders only, each image's folder."""

    rows: Any
    where: str
    classes: list[str] | None = None

    def column(self, name: str, setting: str) -> list[Any]:
        """All values of one column; DataError with the columns there are if it is not one of them."""
        if name not in self.rows.column_names:
            raise DataError(
                f"{self.where}: no column {name!r}{did_you_mean(name, self.rows.column_names)}; {setting} names another"
            )
        column = self.rows[name]
        try:
            return list(column[:])  # all at once: iterating asks for one row after the other
        except UnicodeDecodeError as e:
            row = next(i for i in range(len(column)) if not _decodes(column, i))
            raise DataError(f"{self.where}, row {row + 1}: column {name!r} is not UTF-8 text: {e.reason}") from None


def _decodes(column: Any, i: int) -> bool:
    try:
        column[i]
    except UnicodeDecodeError:
        return False
    return True


@contextmanager
def open_splits(
    data: str, splits: Sequence[str], train_split: str, revision: str | None = None
) -> Iterator[dict[str, Split]]:
    """The rows of `splits` of `data`; local images may be read only inside the context.

    Raises DataError for whatever is missing, empty or malformed, with file and line where there are any.
    """
    with _quiet(), tempfile.TemporaryDirectory(prefix="hpcfed-data-") as temporary:
        if is_local(data):
            yield _open_local(data, list(dict.fromkeys(splits)), train_split, Path(temporary))
        else:
            yield _open_hub(data, list(dict.fromkeys(splits)), revision)


def is_local(data: str) -> bool:
    """Whether `data` is a path rather than a hub name."""
    path = Path(data).expanduser()
    return path.exists() or is_pattern(data) or path.suffix in BUILDERS or data[:1] in "./~" or data.count("/") > 1


def is_pattern(data: str) -> bool:
    """Whether `data` means several files."""
    return any(c in data for c in "*?[")


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars, log lines and usage counts of datasets: what goes wrong is said by the exception."""
    import datasets

    bars, level = datasets.are_progress_bars_disabled(), datasets.logging.get_verbosity()
    # Else reading a local file asks the hub to count it, and waits for seconds where there is no network.
    counts, datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = datasets.config.HF_UPDATE_DOWNLOAD_COUNTS, False
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)
        datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = counts
        if not bars:
            datasets.enable_progress_bars()


def _open_hub(data: str, splits: list[str], revision: str | None) -> dict[str, Split]:
    import datasets

    name, _, configuration = data.partition(":")
    try:
        splits_there = datasets.load_dataset(name, configuration or None, revision=revision)
    except Exception as e:  # the hub's client has no common base for what can go wrong
        raise DataError(
            f"task.data={data!r} is no local path and cannot be loaded from the hub ({first_line(e)}); "
            "for data on disk give a folder with SPLIT.jsonl, SPLIT.csv or SPLIT.parquet files: --set task.data=PATH"
        ) from None
    _check_splits(data, splits, list(splits_there))
    return {split: Split(splits_there[split], f"split {split!r} of {data}") for split in splits}


def _check_splits(data: str, splits: Sequence[str], have: Sequence[str]) -> None:
    for split in splits:
        if split not in have:
            raise DataError(
                f"task.data={data!r} has no split {split!r}{did_you_mean(split, have)}; "
                "task.train_split and task.eval_splits name the splits to use"
            )


def _open_local(data: str, splits: list[str], train_split: str, temporary: Path) -> dict[str, Split]:
    builder, files = local_files(data, splits, train_split)
    _check_splits(data, splits, list(files))
    opened = {}
    for split in splits:
        paths, where = files[split], ", ".join(str(path) for path in files[split])
        for path in paths:
            if path.is_file() and not path.stat().st_size:
                raise DataError(f"{path} is empty")
        opened[split] = _read(builder, paths, where, temporary / split)
        if not len(opened[split].rows):
            raise DataError(f"{where}: holds no rows")
    return opened


def local_files(data: str, splits: Sequence[str], train_split: str) -> tuple[str, dict[str, list[Path]]]:
    """datasets' builder for the files that `data` means, and the files (for images: or folders) of each split."""
    base = Path(data).expanduser()
    if is_pattern(data) and not base.exists():
        anchor = Path(base.anchor or ".")
        paths = sorted(anchor.glob(str(base.relative_to(base.anchor) if base.anchor else base)))
    else:
        paths = _in_folder(base) if base.is_dir() else [base] if base.is_file() else []
    paths = [path for path in paths if path.is_dir() or path.suffix in BUILDERS]
    if not paths:
        what = "holds" if base.exists() else "does not exist: there are"
        raise DataError(
            f"task.data={data!r} {what} no {', '.join(BUILDERS)} files and no SPLIT/CLASS/ folders of images"
        )
    builders = {"imagefolder" if path.is_dir() else BUILDERS[path.suffix] for path in paths}
    if len(builders) > 1:
        kinds = ", ".join(sorted(builders))
        raise DataError(f"task.data={data!r} holds files of different kinds ({kinds}); name one kind: 'PATH/*.jsonl'")
    by_split: dict[str, list[Path]] = {}
    for path in paths:
        by_split.setdefault(_SHARD.sub("", path.name if path.is_dir() else path.stem), []).append(path)
    if not base.is_dir() and not set(by_split) & set(splits):
        by_split = {train_split: paths}
    return builders.pop(), by_split


def _in_folder(folder: Path) -> list[Path]:
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    files = [p for p in entries if p.is_file() and p.suffix in BUILDERS and p.name not in _NO_SPLIT]
    if files:
        return files
    folders = (path for path in entries if path.is_dir())
    pictures = [path for path in folders if any(p.suffix.lower() in _PICTURES for p in path.glob("*/*"))]
    if pictures:
        return pictures
    return _in_folder(folder / "data") if (folder / "data").is_dir() else []  # how repositories on the hub are laid out


def _read(builder: str, paths: list[Path], where: str, temporary: Path) -> Split:
    import datasets

    files = [str(path) for path in paths]
    options: dict[str, Any] = {}
    if builder == "imagefolder":
        files = [f"{_unpacked(path, temporary / str(i))}/**" for i, path in enumerate(paths)]
        options = {"drop_labels": True}  # they are read off the paths below, archives or not
    if builder == "csv":  # "NA" and "null" are words, not missing values
        options = {"keep_default_na": False, "sep": "\t" if paths[0].suffix == ".tsv" else ","}
    try:
        rows = datasets.load_dataset(
            builder,
            data_files={"train": files},
            split="train",
            cache_dir=str(temporary / "cache"),
            keep_in_memory=True,
            **options,
        )
    except Exception as e:  # datasets passes on whatever its readers raise
        raise DataError(_malformed(builder, paths, e)) from None
    if builder != "imagefolder":
        return Split(rows, where)
    names = rows.cast_column("image", datasets.Image(decode=False))["image"]
    return Split(rows, where, [Path(image["path"]).parent.name for image in names])


def _unpacked(path: Path, folder: Path) -> Path:
    if path.is_dir():
        return path
    try:  # one image at a time out of an archive would read its directory anew for each
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder)
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as e:
        raise DataError(f"{path}: cannot be unpacked: {e}") from None
    return folder


def _malformed(builder: str, paths: Sequence[Path], e: BaseException) -> str:
    """Where the malformed line is, as well as can be found out after the reader gave up."""
    cause = e.__cause__ or e
    if builder == "json":
        for path in paths:
            if (bad := _bad_line(path)) is not None:
                return f"{path}, line {bad[0]}: {bad[1]}"
    if builder == "csv" and (line := _LINE.search(str(cause))):
        return f"{', '.join(map(str, paths))}, line {line[1]}: {first_line(cause)}"
    return f"{', '.join(map(str, paths))}: not readable as {builder}: {first_line(cause)}"


def _bad_line(path: Path) -> tuple[int, str] | None:
    """Number and fault of the first line that is not a JSON object with the same types as before."""
    types: dict[str, tuple[type, int]] = {}
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if not raw.strip():
                continue
            try:
                row = json.loads(raw.decode("utf-8"))
            except UnicodeDecodeError as e:
                return number, f"not UTF-8 text (byte {e.start + 1})"
            except json.JSONDecodeError as e:
                return number, f"not a JSON object: {e.msg} (column {e.colno})"
            if not isinstance(row, dict):
                return number, f"a {type(row).__name__}, not a JSON object"
            for name, value in row.items():
                kind, first = types.setdefault(name, (type(value), number))
                if value is not None and kind is not type(None) and type(value) is not kind:
                    return number, f"column {name!r} is {type(value).__name__} here and {kind.__name__} in line {first}"
    return None
