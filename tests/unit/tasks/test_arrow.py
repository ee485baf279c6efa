"""Parquet files and save_to_disk folders: types and class names are the file's."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hpcfed.errors import DataError
from hpcfed.tasks.formats import read_rows
from hpcfed.tasks.load import open_splits
from hpcfed.tasks.tree import OnDisk
from tests.support.data import put, refused_file, rows_of

TEXTS = ["007", "NA", "2020-01-01"]


@pytest.mark.parametrize(
    "text",
    [
        pa.array(TEXTS),
        pa.array(TEXTS, pa.large_string()),
        pa.array(TEXTS).dictionary_encode(),
        pa.chunked_array([TEXTS[:1], TEXTS[1:]]),
        pa.array(TEXTS, pa.string_view()),
        pa.array([*TEXTS[:2], None]),
    ],
    ids=lambda array: str(array.type),
)
def test_texts_of_any_kind_are_text(tmp_path: Path, text: pa.Array):
    pq.write_table(pa.table({"text": text, "label": [1, 0, 1], "other": [1.5, 2.5, 3.5]}), tmp_path / "a.parquet")
    assert rows_of(tmp_path / "a.parquet") == list(zip(text.to_pylist(), [1, 0, 1], strict=True))


def test_class_names_are_found_in_the_schema(tmp_path: Path):
    features = {"label": {"names": ["no", "yes"], "_type": "ClassLabel"}}
    schema = pa.schema([("text", pa.string()), ("label", pa.int64())]).with_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )
    pq.write_table(pa.table({"text": TEXTS, "label": [1, 0, 1]}, schema=schema), tmp_path / "a.parquet")
    rows = read_rows(OnDisk(tmp_path / "a.parquet"), ["label"])
    assert rows.class_names("label") == ["no", "yes"] and rows.class_names("text") is None


@pytest.mark.parametrize("content", [b"PAR1", b"PAR1" * 20, b"text,label\nx,1\n"])
def test_what_is_no_parquet_is_named(tmp_path: Path, content: bytes):
    refused_file(put(tmp_path / "a.parquet", content), "not readable as parquet")


def test_folders_of_save_to_disk(tmp_path: Path):
    data = datasets.Dataset.from_dict({"text": TEXTS, "label": [1, 0, 1]})
    data = data.cast_column("label", datasets.ClassLabel(names=["no", "yes"]))
    datasets.DatasetDict({"train": data, "validation": data.select([2, 0])}).save_to_disk(tmp_path / "both")
    (tmp_path / "both").rename(tmp_path / "both::[1]")
    data.save_to_disk(tmp_path / "one", num_shards=2)
    both = open_splits(str(tmp_path / "both::[1]"), ["train", "validation"], "train", ["text", "label"])
    assert both["train"].column("text", "") == TEXTS and both["train"].class_names("label") == ["no", "yes"]
    assert both["validation"].column("text", "") == [TEXTS[2], TEXTS[0]]
    one = open_splits(str(tmp_path / "one"), ["train"], "train", ["text"])
    assert one["train"].column("text", "") == TEXTS and len(one["train"].parts) == 2
    with pytest.raises(DataError, match="no split 'validation'"):
        open_splits(str(tmp_path / "one"), ["train", "validation"], "train", ["text"])
    (tmp_path / "one" / one["train"].parts[1].where.rpartition("/")[2]).unlink()
    with pytest.raises(DataError, match="is missing, which state"):
        open_splits(str(tmp_path / "one"), ["train"], "train", ["text"])


@pytest.mark.parametrize(
    ("columns", "meant"),
    [(["image"], "image"), (["mask", "image"], "image"), (["img", "mask"], "img"), (["photo"], "photo"), ([], None)],
)
def test_the_column_of_images_is_the_one_of_that_name(tmp_path: Path, columns: list[str], meant: str | None):
    picture = pa.array([{"bytes": b"", "path": ""}])
    pq.write_table(pa.table({"label": [0], **dict.fromkeys(columns, picture)}), tmp_path / "a.parquet")
    assert read_rows(OnDisk(tmp_path / "a.parquet"), ["label"]).image == meant


def test_two_columns_of_images_are_named(tmp_path: Path):
    picture = pa.array([{"bytes": b"", "path": ""}])
    pq.write_table(pa.table({"left": picture, "right": picture, "label": [0]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"columns 'left' and 'right' hold images; call the one"):
        read_rows(OnDisk(tmp_path / "a.parquet"), ["label"])


@pytest.mark.parametrize(
    "told",
    [
        b"null", b"{bad", b'{"info": null}', b"[]", b"7", b"\xff", b"", b'{"info": []}',
        b'{"info": {"features": null}}',
        b'{"info": {"features": {"label": null}}}', b"[" * 100_000,
        b'{"info": {"features": {"label": {"_type": "ClassLabel", "names": null}}}}',
        b'{"info": {"features": {"label": {"_type": "ClassLabel", "names": [1, 2]}}}}',
    ],
    ids=lambda told: told[:60].decode(errors="replace"),
)  # fmt: skip
def test_metadata_that_tell_nothing(tmp_path: Path, told: bytes):
    schema = pa.schema([("text", pa.string()), ("label", pa.int64())]).with_metadata({"huggingface": told})
    pq.write_table(pa.table({"text": TEXTS, "label": [1, 0, 1]}, schema=schema), tmp_path / "a.parquet")
    assert rows_of(tmp_path / "a.parquet") == list(zip(TEXTS, [1, 0, 1], strict=True))
    assert read_rows(OnDisk(tmp_path / "a.parquet"), ["label"]).class_names("label") is None


@pytest.mark.parametrize("name", ["dev", "val", "valid", "eval", "Validation", "DEV"])
def test_splits_go_by_other_names_in_folders_of_save_to_disk(tmp_path: Path, name: str):
    data = datasets.Dataset.from_dict({"text": TEXTS, "label": [1, 0, 1]})
    datasets.DatasetDict({"train": data, name: data.select([2, 0])}).save_to_disk(tmp_path / "both")
    both = open_splits(str(tmp_path / "both"), ["train", "validation"], "train", ["text", "label"])
    assert [len(split) for split in both.values()] == [3, 2] and both["train"].notes == ()
    assert both["validation"].notes == (() if name == "Validation" else (f"validation: taken from {name}",))
    datasets.DatasetDict({"train": data, "dev": data, "val": data}).save_to_disk(tmp_path / "three")
    with pytest.raises(DataError, match="may both be the split 'validation'"):
        open_splits(str(tmp_path / "three"), ["train", "validation"], "train", ["text"])


@pytest.mark.parametrize(
    "state", ['{"_data_files": null}', '{"_data_files": [1]}', "{}", '{"_data_files": [{}]}', "[]"]
)
def test_a_state_that_names_no_files(tmp_path: Path, state: str):
    datasets.Dataset.from_dict({"text": TEXTS}).save_to_disk(tmp_path / "data")
    put(tmp_path / "data/state.json", state)
    for data in (tmp_path / "data", tmp_path):  # a folder data/ is looked into
        with pytest.raises(DataError, match=r"state\.json"):
            open_splits(str(data), ["train"], "train", ["text"])


def test_a_folder_data_without_splits(tmp_path: Path):
    datasets.Dataset.from_dict({"text": TEXTS}).save_to_disk(tmp_path / "data")
    assert len(open_splits(str(tmp_path), ["train"], "train", ["text"])["train"]) == 3
