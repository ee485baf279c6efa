"""Data sets of the hub, by the datasets library and its cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ..errors import DataError, did_you_mean, first_line
from .paths import feature_at
from .rows import Rows


class HubRows(Rows):
    """Rows of a split, as the library decodes them."""

    def __init__(self, where: str, rows: Any) -> None:
        super().__init__(where, rows.column_names, len(rows))
        self._rows = rows
        self.image = next((name for name, f in rows.features.items() if type(f).__name__ == "Image"), None)

    def column(self, name: str) -> Sequence[Any]:
        return list(self._rows[name][:])  # all at once: iterating asks for one row after the other

    def class_names(self, name: str) -> list[str] | None:
        return getattr(feature_at(self._rows.features, name), "names", None)

    def picture(self, i: int) -> Any:
        return self._rows[i][self.image]


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars, log lines and usage counts of datasets: what goes wrong is said by the exception."""
    import datasets

    bars, level = datasets.are_progress_bars_disabled(), datasets.logging.get_verbosity()
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


def read_hub(data: str, splits: Sequence[str], revision: str | None) -> dict[str, Rows]:
    """The rows of `splits` of NAME or NAME:CONFIGURATION. DataError if the hub has none such."""
    import datasets

    name, _, configuration = data.partition(":")
    try:
        with quiet():
            there = datasets.load_dataset(name, configuration or None, revision=revision)
    except Exception as e:  # the hub's client has no common base for what can go wrong
        raise DataError(
            f"task.data={data!r} is no local path and cannot be loaded from the hub ({first_line(e)}); "
            "for data on disk give a folder with SPLIT.jsonl, SPLIT.csv or SPLIT.parquet files: --set task.data=PATH"
        ) from None
    for split in splits:
        if split not in there:
            raise DataError(
                f"task.data={data!r} has no split {split!r}{did_you_mean(split, list(there))}; "
                "task.train_split and task.eval_splits name the splits to use"
            )
    return {split: HubRows(f"split {split!r} of {data}", there[split]) for split in splits}
