"""No record of a CSV file swallows its neighbours, and texts of several lines are kept."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from tests.support.data import put, refused_file, rows_of

HEAD, TAIL = "text,label\n", "".join(f"film {i},{i % 2}\n" for i in range(12))
WORDS = "text,label\nfine,pos\nweak,neg\n"
GENUINE_1001 = "".join(f'"line\nand {i}",{i % 2}\n' for i in range(1001))
SWALLOWED = {
    "three rows": (".csv", HEAD + '"good film,1\nbad film,0\nnice film",1\n' + TAIL, "lines 2 to 4"),
    "two rows": (".csv", HEAD + TAIL + '"good film,1\nnice film",1\n', "lines 14 to 15"),
    "the first has a comma": (
        ".csv", HEAD + '"tis a good, fine film,1\n' + TAIL + 'the screen is 27",1\n' + TAIL, "lines 2 to 15",
    ),
    "a broken line": (".csv", HEAD + '"good,1\nbad,0\nbroken, line,1\nnice",1\n' + TAIL, "lines 2 to 5"),
    "short lines": (".csv", HEAD + '"good,1\nbad,0\nbroken\nshort\nline\nnice",1\n' + TAIL, "lines 2 to 7"),
    "the last has a comma": (".csv", HEAD + '"good,1\nbad,0\nnice, film",1\n' + TAIL, "lines 2 to 4"),
    "blank lines": (".csv", HEAD + '"good,1\n\n\nnice, film",1\n' + TAIL, "lines 2 to 5"),
    "all of the file": (".csv", HEAD + '"good,1\nbad,0\nnice film",1\n', "lines 2 to 4"),
    "behind many texts of two lines": (".csv", HEAD + GENUINE_1001 + '"a,1\nb,0\nc",1\n' + TAIL, "lines 2004 to 2006"),
    "the label in front": (".csv", 'label,text\n1,"good, fine\n0,bad\n1,nice"\n', "lines 2 to 4"),
    "a number in front": (
        ".csv", 'id,text,label\n1,x,0\n2,"good film,1\n3,bad, bad film,0\n4,nice film",1\n', "lines 3 to 5",
    ),
    "more columns behind": (".csv", 'text,label,by\nx,0,me\n"good,1,you\nbad,0,me\nnice",1,me\n', "lines 3 to 5"),
    "words": (".csv", WORDS + '"good film,pos\nnice film",neg\n', "lines 4 to 5"),
    "a word that is nowhere else": (".csv", 'text,label\nfine,pos\n"a,neg\nb",pos\n', "lines 3 to 4"),
    "scores that never repeat": (".csv", 'text,label\nx,0.25\n"a,3.25\nb,1.75\nc",2.5\n', "lines 3 to 5"),
    "classes that are nowhere else": (".csv", HEAD + TAIL + '"a,2\nb,2\nc,3\nd",1\n', "lines 14 to 17"),
    "CRLF": (".csv", (HEAD + '"good,1\nnice, film",1\n' + TAIL).replace("\n", "\r\n"), "lines 2 to 3"),
    "CR alone": (".csv", (HEAD + '"good,1\nnice, film",1\n' + TAIL).replace("\n", "\r"), "lines 2 to 3"),
    "tabs, a broken line": (
        ".tsv", 'text\tlabel\n"good\t1\nbad\t0\nbroken\tline\t1\nnice"\t1\nx\t0\n', "line 4: 3 fields",
    ),
    "tabs, a short line": (".tsv", 'text\tlabel\n"good\t1\nbad\t0\nbroken\nnice"\t1\nx\t0\n', "line 4: 1 fields"),
}  # fmt: skip


@pytest.mark.parametrize("case", SWALLOWED)
def test_swallowed_rows_are_named(tmp_path: Path, case: str):
    ending, content, where = SWALLOWED[case]
    refused_file(put(tmp_path / f"a{ending}", content), where, "quotes", "double the quotes", ".jsonl")


GENUINE = {
    "paragraphs": "I went there twice.\n\nThe food was fine, the wine too.\nNever again, though.",
    "one comma in a line": "Hello, dear\nBye",
    "one comma in each line": "Roses are red, dear\nViolets are blue, dear\nHoney is sweet, dear",
    "a poem": "Tyger Tyger, burning bright,\nIn the forests of the night;\nWhat immortal hand or eye,\nCould frame?",
    "a letter": "Dear Sir,\n\nI bought it on May 5, 2012\nand it broke on June 1, 1\nYours,\nJ",
    "thousands": "I paid 1,000\nand then 2,500\nfor it",
    "code": "def f(a,b):\n    return g(a,b,\n             0,1)\n\nx = [1,0,\n     0,1]\nprint(x,y)",
    "a list": "- milk, 1 l\n- eggs, 10\n- bread,butter\n1, 2, 3\n4, 0",
    "one line of ten like a row": "a\nb\nc\nd,1\ne\nf\ng\nh\ni\nj",
    "quotes": 'He said: "no,\nnever", and left,\n""\n"1"\nsays who?',
    "a comma and a break at the ends": "\n,a,\n",
}
LABELS = {"digits": ("0", "1"), "words": ("neg", "pos"), "phrases": ("very bad", "very good")}


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("ending", [".csv", ".tsv"])
@pytest.mark.parametrize("labels_first", [False, True])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_texts_of_several_lines_are_kept(tmp_path: Path, label: str, ending: str, labels_first: bool, end: str):
    rows = [(text, LABELS[label][i % 2]) for i, text in enumerate([*GENUINE.values(), *map(str, "abcdefg")])]
    file = written(tmp_path / f"a{ending}", rows, labels_first, csv.QUOTE_MINIMAL, end)
    assert rows_of(file) == rows


@pytest.mark.parametrize("case", GENUINE)
def test_a_text_of_several_lines_is_kept_in_a_file_of_its_own(tmp_path: Path, case: str):
    rows = [("x", "1"), (GENUINE[case], "0"), ("y", "1")]
    assert rows_of(written(tmp_path / "a.csv", rows)) == rows


@pytest.mark.parametrize("labels_first", [False, True])
def test_texts_like_rows_are_kept_where_all_are_quoted(tmp_path: Path, labels_first: bool):
    rows = [("x,1\ny,0\n1,z\n0,z", "1"), ("n,1\nm", "0"), ("k", "1")]
    assert rows_of(written(tmp_path / "a.csv", rows, labels_first, csv.QUOTE_ALL)) == rows
    refused_file(written(tmp_path / "b.csv", rows, labels_first), "quotes join these lines")


def test_an_unlabelled_text_like_rows_is_refused(tmp_path: Path):
    file = put(tmp_path / "a.csv", 'text,by\nx,me\n"a,you\nb,him\nc",me\n')
    refused_file(file, "lines 3 to 5", wanted=["text"])
    kept = put(tmp_path / "b.csv", 'text,by\nx,me\n"a, you\nb",me\n')
    assert rows_of(kept, ["text"]) == [("x",), ("a, you\nb",)]


def written(
    file: Path,
    rows: list[tuple[str, str]],
    labels_first: bool = False,
    quoting: int = csv.QUOTE_MINIMAL,
    end: str = "\n",
) -> Path:
    """`file` as Python's writer of CSV makes it."""
    text = io.StringIO(newline="")
    separator = "\t" if file.suffix == ".tsv" else ","
    writer = csv.writer(text, delimiter=separator, quoting=quoting, lineterminator=end)  # type: ignore[arg-type]
    writer.writerows(row[::-1] if labels_first else row for row in [("text", "label"), *rows])
    return put(file, text.getvalue())
