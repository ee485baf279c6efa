"""Files are unpacked by their names' endings, and what is no text is named as what it is."""

from __future__ import annotations

import bz2
import gzip
import lzma
from pathlib import Path

import pyarrow as pa
import pytest

from hpcfed.tasks.lines import endings
from tests.support.data import put, refused_file, rows_of

ROWS = b"".join(b'{"text": "x%d", "label": %d}\n' % (i, i % 2) for i in range(2000))
PACK = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda raw: pa.compress(raw, codec="zstd", asbytes=True),
    ".GZ": gzip.compress,
    "": bytes,
}


@pytest.mark.parametrize("ending", PACK)
def test_packed_files_are_read(tmp_path: Path, ending: str):
    rows = rows_of(put(tmp_path / f"a.jsonl{ending}", PACK[ending](ROWS)))
    assert len(rows) == 2000 and rows[-1] == ("x1999", 1)


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".xz", ".zst"])
def test_a_torn_or_foreign_packing_is_named(tmp_path: Path, ending: str):
    packed = PACK[ending](ROWS)
    refused_file(put(tmp_path / f"a.jsonl{ending}", packed[: len(packed) // 2]), "cannot be unpacked")
    refused_file(put(tmp_path / f"b.jsonl{ending}", ROWS), "cannot be unpacked")
    refused_file(put(tmp_path / "c.jsonl", packed), ending)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "Git LFS pointer"),
        (b"PK\x03\x04\0rest", "zip archive"),
        (b"PAR1\n\xffrest\n", "Parquet"),
        (b"\xfe\xff\0{", "UTF-16"),
        (b'{"text": "a\0b"}\n', "NUL"),
    ],
)
def test_what_is_no_text_is_named(tmp_path: Path, content: bytes, says: str):
    refused_file(put(tmp_path / "a.jsonl", content), says)


@pytest.mark.parametrize("text", ['{"text": "x"}\n', "text,label\nx,1\n", "a,b\n\u4e2d\u6587,1\n", "caf\u00e9,label\n"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.tsv"])
@pytest.mark.parametrize("code", ["UTF-16LE", "UTF-16BE", "UTF-32LE", "UTF-32BE", "UTF-16", "UTF-32"])
def test_encodings_of_two_and_four_bytes_are_named(tmp_path: Path, name: str, code: str, text: str):
    advice = f"line 1: {code[:6]}, not UTF-8; convert it: iconv -f {code} -t UTF-8"
    refused_file(put(tmp_path / name, text.encode(code)), advice)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("train.jsonl", ("train", ".jsonl", "")),
        ("train.JSONL.GZ", ("train", ".jsonl", ".gz")),
        ("a.b.csv", ("a.b", ".csv", "")),
        ("train", ("train", "", "")),
        ("train.gz", ("train", "", ".gz")),
        (".csv", (".csv", "", "")),
    ],
)
def test_endings(name: str, parts: tuple[str, str, str]):
    assert endings(name) == parts
