"""CSV and TSV: what stands in a field is what is read, and no record is lost."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest

from hpcfed.errors import DataError
from hpcfed.tasks.formats import read_rows
from hpcfed.tasks.rows import Split
from hpcfed.tasks.tree import OnDisk
from tests.support.data import put, refused_file, rows_of

UNGUESSED = ("007", "2020-01-01", "NA", "None", "null", "true", "1e5", "+5", " 5")
RIGHT = {
    "plain": ("a.csv", "text,label\nx,1\ny,0\n", [("x", "1"), ("y", "0")]),
    "commas, quotes and line ends in quotes": (
        "a.csv", 'text,label\n"a, ""b""\nc",1\ny,0\n', [('a, "b"\nc', "1"), ("y", "0")],
    ),
    "no guessed types": (
        "a.csv", "text,label\n" + "".join(f"{v},1\n" for v in UNGUESSED), [(v, "1") for v in UNGUESSED],
    ),
    "an empty field is missing": ("a.csv", "text,label\n,1\n", [(None, "1")]),
    "CRLF and a mark": ("a.csv", b"\xef\xbb\xbftext,label\r\nx,1\r\n", [("x", "1")]),
    "CR alone": ("a.csv", "text,label\rx,1\ry,0\r", [("x", "1"), ("y", "0")]),
    "blank lines": ("a.csv", "text,label\n\nx,1\n  \ny,0\n\n", [("x", "1"), ("y", "0")]),
    "other line ends are characters": ("a.csv", "text,label\na\u2028b\x0bc\x85d,1\n", [("a\u2028b\x0bc\x85d", "1")]),
    "a quote inside a bare field": ("a.csv", 'text,label\n5" pipe,1\n', [('5" pipe', "1")]),
    "a text of two lines with a comma": (
        "a.csv", 'text,label\n"Hello, dear\nBye",1\nx,0\n', [("Hello, dear\nBye", "1"), ("x", "0")],
    ),
    "an index without a name": ("a.csv", ",text,label\n0,x,1\n", [("x", "1")]),
    "tsv: quotes are characters": (
        "a.tsv", 'text\tlabel\n" x\t1\ny\t0\n" z\t1\n', [('" x', "1"), ("y", "0"), ('" z', "1")],
    ),
    "tsv: a whole field in quotes, as it stands": ("a.tsv", 'text\tlabel\n"x"\t1\ny\t0\n', [('"x"', "1"), ("y", "0")]),
    "tsv: written by a CSV writer": ("a.tsv", 'text\tlabel\n"say ""x"""\t1\ny\t0\n', [('say "x"', "1"), ("y", "0")]),
    "tsv: all fields quoted": ("a.tsv", '"text"\t"label"\n"x"\t"1"\n"y"\t"0"\n', [("x", "1"), ("y", "0")]),
    "tsv: a quoted text over two lines": ("a.tsv", 'text\tlabel\n"x\nz"\t1\ny\t0\n', [("x\nz", "1"), ("y", "0")]),
    "tsv: written by Excel": (
        "a.tsv", 'text\tlabel\n"good, fine"\t1\nbad\t0\n', [("good, fine", "1"), ("bad", "0")],
    ),
    "tsv: Excel, commas in two columns": ("a.tsv", 'text\tlabel\n"a,b"\t"0,5"\nx\t1\n', [("a,b", "0,5"), ("x", "1")]),
    "tsv: Excel, a quote too": ("a.tsv", 'text\tlabel\n"a,b"\t1\n"5"" c"\t1\n', [("a,b", "1"), ('5" c', "1")]),
    "tsv: Excel, a comma in the header": ("a.tsv", '"no, x"\ttext\tlabel\n1\ta\t1\n', [("a", "1")]),
    "tsv: a comma in quotes, and one without": (
        "a.tsv", 'text\tlabel\n"a, b"\t1\nc, d\t0\n', [('"a, b"', "1"), ("c, d", "0")],
    ),
    "tsv: a comma in quotes, and quotes without": (
        "a.tsv", 'text\tlabel\n"a, b"\t1\n"c"\t0\n', [('"a, b"', "1"), ('"c"', "0")],
    ),
    "tsv: a comma in quotes that end early": ("a.tsv", 'text\tlabel\n"a, b" c\t1\n', [('"a, b" c', "1")]),
    "upper case": ("a.TSV", "text\tlabel\nx\t1\n", [("x", "1")]),
}  # fmt: skip


@pytest.mark.parametrize("case", RIGHT)
def test_what_stands_there_is_read(tmp_path: Path, case: str):
    name, content, rows = RIGHT[case]
    assert rows_of(put(tmp_path / name, content)) == rows


WRONG = {
    "a field too many": ("a.csv", "text,label\nx,1\ny,0,3\n", ["line 3: 3 fields", "2 columns (text, label)"]),
    "a field too few": ("a.csv", "text,label\nx,1\ny\n", ["line 3: 1 fields"]),
    "tsv: a field too many": ("a.tsv", "text\tlabel\nx\t1\ny\t0\t\n", ["line 3: 3 fields", "tabs"]),
    "a quote that nobody closes": ("a.csv", 'text,label\nx,1\n"y,0\nz,1\n', ["line 3: a quote opens"]),
    "backslashes before quotes": ("a.csv", 'text,label\n"say \\"x\\" now",1\n', ["line 2", "backslash"]),
    "tsv: backslashes before quotes": (
        "a.tsv", '"text"\t"label"\n"x"\t1\n"say \\"x\\" now"\t1\n', ["line 3", "not written with a backslash"],
    ),
    "tsv: backslashes, and all in quotes": (
        "a.tsv", '"text"\t"label"\n"\\"x\\" he said"\t"1"\n', ["line 2", "not written with a backslash"],
    ),
    "tsv: backslashes, and numbers in front": (
        "a.tsv", '"id"\t"text"\t"label"\n1\t"a \\"b\\""\t0\n', ["line 2", "not written with a backslash"],
    ),
    "tsv: a header in quotes, and a quote in the middle": (
        "a.tsv", '"text"\t"label"\n"x" y\t1\n', ["line 2", "doubled"],
    ),
    "a quote in the middle": ("a.csv", 'text,label\n"x" y,1\n', ["line 2", "doubled"]),
    "quotes that swallow rows": (
        "a.csv", 'text,label\nx,1\ny,0\n"a,1\nb,0\nc",1\n', ["lines 4 to 6: quotes join these lines"],
    ),
    "tsv: quotes that swallow rows, and another fault": (
        "a.tsv", 'text\tlabel\nx\t1\n"a\t1\nb\t0\nc"\t1\nz\t0\t\n', ["line 6: 3 fields"],
    ),
    "the header again": ("a.csv", "text,label\nx,1\ntext,label\ny,0\n", ["line 3: the header once more"]),
    "a column twice": ("a.csv", "text,label,text\nx,1,y\n", ["column 'text' 2 times"]),
    "Latin-1": ("a.csv", b"text,label\nx,1\ncaf\xe9,0\n", ["line 3: not UTF-8 text (byte 4): 0xe9"]),
    "UTF-16": ("a.csv", "text,label\nx,1\n".encode("utf-16"), ["line 1: UTF-16", "iconv"]),
    "UTF-16 without a mark": ("a.csv", "text,label\nx,1\n".encode("utf-16le"), ["line 1: UTF-16", "iconv"]),
    "CR between lines that end in LF": ("a.csv", "text,label\nx,1\ry,0\nz,1\n", ["line 2", "CR alone"]),
    "CR in the last line": ("a.csv", "text,label\nx,1\nz,1\ry,0\r", ["line 3", "CR alone"]),
    "CR before CRLF": ("a.csv", "text,label\r\nx\ry,1\r\n", ["line 2", "CR alone"]),
    "CR behind quotes": ("a.csv", 'text,label\n"x\ny","1"\rz,0\n', ["lines 2 to 3", "CR alone"]),
    "CR and no label": ("a.csv", "text,label\nx,1\n\ry,0\n", ["line 3", "CR alone"]),
    "tsv: CR between lines that end in LF": ("a.tsv", "text\tlabel\nx\t1\ry\t0\nz\t1\n", ["line 2", "CR alone"]),
    "tsv: CR between short lines": ("a.tsv", "text\tlabel\nx\ry\nz\t1\n", ["line 2: 1 fields", "CR alone"]),
    "sep= first": ("a.csv", "sep=,\ntext,label\nx,1\n", ["line 1: sep=,", "leave it out"]),
    "sep= and three columns": ("a.csv", "sep=,\ntext,label,by\nx,1,me\n", ["line 1: sep=,", "leave it out"]),
    "sep= in quotes": ("a.csv", '"sep=,"\ntext,label\nx,1\n', ["line 1: sep=,", "leave it out"]),
    "SEP= and another separator": ("a.csv", "SEP=;\ntext;label\nx;1\n", ["line 1: SEP=;", "leave it out"]),
    "tsv: sep= first": ("a.tsv", "sep=\t\ntext\tlabel\nx\t1\n", ["line 1: sep=", "leave it out"]),
    "tsv: sep= of another kind": ("a.tsv", "sep=,\ntext\tlabel\nx\t1\n", ["line 1: sep=,", "leave it out"]),
    "NUL": ("a.csv", b"text,label\nx\0y,1\n", ["line 2", "NUL"]),
    "no rows": ("a.csv", "text,label\n", ["holds no rows"]),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named_by_its_line(tmp_path: Path, case: str):
    name, content, parts = WRONG[case]
    refused_file(put(tmp_path / name, content), *parts)


NAMES = {
    "a blank before": ("a.csv", "text, label\nx,1\n", "' label'"),
    "a blank behind": ("a.csv", "text ,label\nx,1\n", "'text '"),
    "a blank before each": ("a.csv", " text, label\nx,1\n", "' text'"),
    "a blank that does not break": ("a.csv", "text,\u00a0label\nx,1\n", "'\\xa0label'"),
    "no width": ("a.csv", "\u200btext,label\nx,1\n", "'\\u200btext'"),
    "tsv: a blank behind": ("a.tsv", "text\tlabel \nx\t1\n", "'label '"),
    "in quotes": ("a.csv", '"text"," label"\nx,1\n', "' label'"),
}


@pytest.mark.parametrize("case", NAMES)
def test_characters_of_a_name_that_cannot_be_seen_are_shown(tmp_path: Path, case: str):
    name, content, shown = NAMES[case]
    rows = read_rows(OnDisk(put(tmp_path / name, content)), ["text", "label"])
    missing = next(column for column in ("text", "label") if column not in rows.names)
    with pytest.raises(DataError, match=re.escape(f"the header has {shown}")):
        Split([rows]).column(missing, "task.text")


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_what_a_writer_of_csv_wrote_comes_back(tmp_path: Path, name: str, quoting: int):
    texts = ['"', 'say "x"', "a,b", "a\tb", "a\nb", "a\r\nb", "'", "x"]
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter="\t" if name == "a.tsv" else ",", quoting=quoting)  # type: ignore[arg-type]
    writer.writerows([("text", "label"), *((text, i % 2) for i, text in enumerate(texts))])
    assert rows_of(put(tmp_path / name, text.getvalue())) == [(text, str(i % 2)) for i, text in enumerate(texts)]
