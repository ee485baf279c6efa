"""Data of every form, and what is said about data that are wrong."""

from __future__ import annotations

import json
import os
import socket
import zipfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hpcfed.errors import DataError
from hpcfed.tasks.load import open_splits
from tests.support.small import save_tiny_folder, tiny_sst2, write_jsonl
from tests.support.tasks import SENTENCES, open_task, same_examples


@pytest.fixture(scope="module")
def opt(tmp_path_factory):
    return save_tiny_folder(tmp_path_factory.mktemp("model"), "opt")


def as_csv(path: Path, separator: str = ",") -> None:
    lines = [separator.join(SENTENCES[0])] + [separator.join(str(v) for v in row.values()) for row in SENTENCES]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def as_parquet(path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(SENTENCES), path)


WRITERS = {
    "jsonl": lambda path: write_jsonl(path, SENTENCES),
    "json": lambda path: path.write_text(json.dumps(SENTENCES), encoding="utf-8"),
    "csv": as_csv,
    "tsv": lambda path: as_csv(path, "\t"),
    "parquet": as_parquet,
}


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_file_format_gives_the_same_examples(tmp_path, opt, suffix):
    for split in ("train", "validation"):
        WRITERS[suffix](tmp_path / f"{split}.{suffix}")
    write_jsonl(tmp_path / "other" / "train.jsonl", SENTENCES)
    folder = open_task(opt, name="sst2", data=str(tmp_path / "other"), eval_splits=["train"])
    found = open_task(opt, name="sst2", data=str(tmp_path))
    assert same_examples(found.train, folder.train) and same_examples(found.splits["validation"], folder.train)
    assert found.train.labels.tolist() == [row["label"] for row in SENTENCES]


def test_files_patterns_and_shards(tmp_path, opt):
    write_jsonl(tmp_path / "data" / "train-00000-of-00002.jsonl", SENTENCES[:3])
    write_jsonl(tmp_path / "data" / "train-00001-of-00002.jsonl", SENTENCES[3:])
    write_jsonl(tmp_path / "reviews.jsonl", SENTENCES)
    whole = open_task(opt, name="sst2", data=str(tmp_path / "reviews.jsonl"), eval_splits=["train"])
    for data in ("data", "data/*.jsonl", "data/train-0000?-of-00002.jsonl"):
        assert same_examples(
            open_task(opt, name="sst2", data=str(tmp_path / data), eval_splits=["train"]).train, whole.train
        )
    assert whole.splits["train"] is whole.train  # read and encoded once


def test_na_and_null_are_words_in_csv(tmp_path, opt):
    (tmp_path / "train.csv").write_text("sentence,label\nNA,1\nnull,0\n")
    task = open_task(opt, name="sst2", data=str(tmp_path), eval_splits=["train"])
    assert len(task.train) == 2


BAD_LINES = [
    ('{"sentence": "a", "label": 1\n', "line 2", "not a JSON object"),
    ("hello\n", "line 2", "not a JSON object"),
    ("[1, 2]\n", "line 2", "a list, not a JSON object"),
    ('{"sentence": "a", "la', "line 2", "not a JSON object"),
    ('{"sentence": "\udcff", "label": 1}\n', "line 2", "not UTF-8"),
    ('{"sentence": "a", "label": 2}\n', "row 2", "label 2 is out of range; must be 0 to 1"),
    ('{"sentence": "a", "label": -7}\n', "row 2", "label -7 is out of range"),
    ('{"sentence": "a", "label": 0.5}\n', "row 2", "label 0.5 must be 0 to 1"),
    ('{"sentence": "a", "label": "positve"}\n', "row 2", "did you mean positive?"),
    ('{"sentence": "a", "label": null}\n', "row 2", "the label is missing"),
    ('{"sentence": "a"}\n', "row 2", "the label is missing"),
    ('{"sentence": null, "label": 1}\n', "row 2", "column 'sentence' is missing"),
]


@pytest.mark.parametrize(("line", "where", "what"), BAD_LINES)
def test_a_bad_line_is_named(tmp_path, opt, line, where, what):
    file = tmp_path / "train.jsonl"
    text = '{"sentence": "the film is great", "label": 1}\n' + line
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError) as raised:
        open_task(opt, name="sst2", data=str(file), eval_splits=["train"])
    assert str(file) in str(raised.value) and where in str(raised.value) and what in str(raised.value), raised.value


def test_a_repaired_file_is_read_anew(tmp_path, opt):
    file = write_jsonl(tmp_path / "train.jsonl", SENTENCES)
    stamp = file.stat()
    before = open_task(opt, name="sst2", data=str(file), eval_splits=["train"])
    flipped = [{**row, "label": 1 - row["label"]} for row in SENTENCES]
    write_jsonl(file, flipped)  # as long as before, and as old
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    after = open_task(opt, name="sst2", data=str(file), eval_splits=["train"])
    assert after.train.labels.tolist() == (1 - before.train.labels).tolist()


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_an_empty_file_says_so(tmp_path, opt, text):
    (tmp_path / "train.jsonl").write_text(text)
    with pytest.raises(DataError, match=r"train\.jsonl.*(empty|no data|no rows)"):
        open_task(opt, name="sst2", data=str(tmp_path), eval_splits=["train"])


def test_a_csv_line_with_too_many_fields_is_named(tmp_path, opt):
    (tmp_path / "train.csv").write_text("sentence,label\na,1\nb,0,3\n")
    with pytest.raises(DataError, match=r"train\.csv, line 3: "):
        open_task(opt, name="sst2", data=str(tmp_path), eval_splits=["train"])


def test_unlabelled_splits_and_mixed_or_missing_folders(tmp_path, opt):
    rows = [{**row, "label": -1} for row in SENTENCES]
    write_jsonl(tmp_path / "train.jsonl", SENTENCES)
    write_jsonl(tmp_path / "test.jsonl", rows)
    with pytest.raises(DataError, match="no row has a label"):
        open_task(opt, name="sst2", data=str(tmp_path), eval_splits=["test"])
    as_csv(tmp_path / "validation.csv")
    with pytest.raises(DataError, match="files of different kinds"):
        open_task(opt, name="sst2", data=str(tmp_path))
    with pytest.raises(DataError, match="does not exist"):
        open_task(opt, name="sst2", data=str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no"):
        open_task(opt, name="sst2", data=str(tmp_path / "empty"))
    with zipfile.ZipFile(tmp_path / "empty" / "train.zip", "w"):
        pass
    (tmp_path / "empty" / "train.zip").write_bytes(b"PK no archive")
    with pytest.raises(DataError, match=r"train\.zip: cannot be unpacked"):
        open_task(opt, name="sst2", data=str(tmp_path / "empty"), eval_splits=["train"])


def test_local_files_need_no_network(tmp_path, opt, monkeypatch):
    asked = []

    def connect(*arguments, **_):
        asked.append(arguments)
        raise OSError("no network")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)
    assert len(open_task(opt, name="sst2", data=str(tiny_sst2(tmp_path))).train) == 64 and not asked


def test_without_network_the_way_to_local_data_is_shown(opt, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"'stanfordnlp/sst2' .*cannot be loaded from the hub .*--set task.data=PATH"):
        open_task(opt, name="sst2")


def _rows(data: str) -> list[str]:
    splits = open_splits(data, ["train", "test"], "train", ["sentence"])
    return [text for split in splits.values() for text in split.column("sentence", "task.text")]


@pytest.mark.long
def test_processes_that_load_together_do_not_meet(tmp_path):
    data = str(tiny_sst2(tmp_path))
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        results = list(pool.map(_rows, [data] * 4))
    assert results == [_rows(data)] * 4 and len(results[0]) == 96
