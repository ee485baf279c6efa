"""JSON lines and documents: values keep their type, and what is not clear is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.data import put, refused_file, rows_of

ROW, OTHER = '{"text": "x", "label": 1}', '{"text": "y", "label": 0}'
TWO = [("x", 1), ("y", 0)]
RIGHT = {
    "lines": (f"{ROW}\n{OTHER}\n", TWO),
    "without an end, blank lines between": (f"\n{ROW}\n\n{OTHER}", TWO),
    "a list": (f"[{ROW},\n {OTHER}]\n", TWO),
    "a list over many lines": ('[\n  {\n  "text": "x",\n  "label": 1\n}\n]', TWO[:1]),
    "objects over many lines": ('{\n"text": "x",\n"label": 1}\n{\n"text": "y",\n"label": 0}\n', TWO),
    "rows in data": (f'{{"version": 2, "data": [{ROW}, {OTHER}]}}', TWO),
    "columns": ('{"text": ["x", "y"], "label": [1, 0]}', TWO),
    "one row": (ROW, TWO[:1]),
    "a mark, CRLF": (b"\xef\xbb\xbf" + f"{ROW}\r\n{OTHER}\r\n".encode(), TWO),
    "marks in the middle": (f"\ufeff{ROW}\n\ufeff{OTHER}\n", TWO),
    "types are kept": (
        '{"text": "007", "label": 12345678901234567890}\n{"text": "2020-01-01", "label": null}\n{"text": "NA"}\n',
        [("007", 12345678901234567890), ("2020-01-01", None), ("NA", None)],
    ),
    "line separators in a text": ('{"text": "a\u2028b", "label": 1}\n' + OTHER, [("a\u2028b", 1), ("y", 0)]),
    "columns that nobody asks for": ('{"text": "x", "label": 1, "n": NaN}\n' + OTHER, TWO),
}


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
@pytest.mark.parametrize("case", RIGHT)
def test_what_stands_there_is_read(tmp_path: Path, case: str, name: str):
    content, rows = RIGHT[case]
    assert rows_of(put(tmp_path / name, content)) == rows


WRONG = {
    "a torn line": (f'{ROW}\n{{"text": "y", "la', ["line 2: not a JSON object"]),
    "a torn first line": ('{"text": "y", "la\n' + ROW, ["line 1: not a JSON object"]),
    "a list a line": (f"{ROW}\n[1, 2]\n", ["line 2: a list, not a JSON object"]),
    "a list of lists": ("[[1, 2], [3, 4]]", ["a list, not a JSON object"]),
    "words": ("hello\n", ["line 1: not a JSON object"]),
    "a key twice": (f'{ROW}\n{{"text": "y", "text": "z", "label": 1}}\n', ["line 2", "the key 'text' twice"]),
    "pandas' columns": ('{"text": {"0": "x"}, "label": {"0": 1}}', ["orient"]),
    "columns of two lengths": ('{"text": ["x", "y"], "label": [1]}', ["different lengths"]),
    "behind the list": (f"[{ROW}]\n{OTHER}", ["line 2: not a JSON object: Extra data"]),
    "a key twice in the first line": (f'{{"text": "y", "text": "z"}}\n{ROW}\n', ["line 1: the key 'text' twice"]),
    "a key twice in the only line": ('{"text": "y", "text": "z"}', ["line 1: the key 'text' twice"]),
    "a key twice below blank lines": ('\n\n{"text": "y", "text": "z"}\n', ["line 3: the key 'text' twice"]),
    "a key twice in a list": (f'[{ROW},\n{ROW},\n{{"text": "y", "text": "z"}}]', ["line 3: the key 'text' twice"]),
    "a key twice in one of many": ('{\n"text": "x"\n}\n{"a": 1, "a": 2}', ["line 4: the key 'a' twice"]),
    "a key twice deep inside": (f'{{"text": {{"a": 1, "a": 2}}}}\n{ROW}', ["line 1: the key 'a' twice"]),
    "the first line too deep": ("[" * 100_000 + "\n" + ROW, ["line 1: objects or lists too deep"]),
    "a row of a list too deep": (f'[{ROW},\n{{"text": {"[" * 100_000}', ["line 2: objects or lists too deep"]),
    "too deep": ("[" * 100_000, ["too deep"]),
    "an empty list": ("[]", ["holds no rows"]),
    "Latin-1": (b'{"text": "caf\xe9", "label": 1}\n', ["line 1: not UTF-8 text (byte 14)"]),
    "UTF-16": (ROW.encode("utf-16"), ["line 1: UTF-16"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named_by_its_line(tmp_path: Path, case: str):
    content, parts = WRONG[case]
    refused_file(put(tmp_path / "a.jsonl", content), *parts)
