"""SuperGLUE's official files, where one row holds many examples or nests them: their rows as the hub has them.

MULTIRC    passage{text, questions[{question, answers[{text, label}]}]}
RECORD     passage{text, entities[{start, end}]}, qas[{query, answers[{text}]}]        end is the last character
WSC        target{span1_text, span2_text}

Promise  a row keeps its other columns, and messages name the row of the file that it is from
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import DataError
from .rows import Rows, Split

Row = dict[str, Any]


class _Unfolded(Rows):
    """of: [n], the row of the file that each is from.  nested: columns of the file that are not looked into again."""

    def __init__(self, source: Rows, rows: list[Row], of: list[int], nested: Sequence[str]) -> None:
        self._made = list(dict.fromkeys(name for row in rows for name in row))
        kept = [name for name in source.names if name not in nested and name not in self._made]
        super().__init__(source.where, [*self._made, *kept], len(rows))
        self.left_out = source.left_out
        self._source, self._rows, self._of = source, rows, of

    def column(self, name: str) -> Sequence[Any]:
        if name in self._made:
            return [row.get(name) for row in self._rows]
        values = self._source.column(name)
        return [values[i] for i in self._of]

    def class_names(self, name: str) -> list[str] | None:
        return None if name in self._made and name not in self._source.names else self._source.class_names(name)

    def number(self, i: int) -> str:
        row = self._of[i]
        part = f", example {i - self._of.index(row) + 1} of it" if self._of.count(row) > 1 else ""
        return self._source.number(row) + part


@dataclass(frozen=True)
class Unfold:
    """root: the column that only the nested form has.  roots: all of it that is read.  rows: of one nested row."""

    root: str
    roots: tuple[str, ...]
    rows: Callable[[Mapping[str, Any]], list[Row]]

    def flat(self, split: Split) -> Split:
        """The split with a row an example; as it is if it is flat. DataError with a row that is nested otherwise."""
        if not any(self.root in part.names for part in split.parts):
            return split
        return Split([self._part(part) for part in split.parts], split.notes)

    def _part(self, part: Rows) -> Rows:
        columns = {name: part.column(name) for name in self.roots if name in part.names}
        rows, of = list[Row](), list[int]()
        for i in range(len(part)):
            try:
                made = self.rows({name: column[i] for name, column in columns.items()})
            except (KeyError, TypeError, AttributeError, IndexError, ValueError) as e:
                where = f"{part.where}, row {part.number(i)}: not nested as SuperGLUE's files are"
                raise DataError(f"{where}: {_wrong(e)}") from None
            rows += made
            of += [i] * len(made)
        return _Unfolded(part, rows, of, self.roots)


def _wrong(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it has no {error.args[0]!r}"
    return str(error) if type(error) is ValueError else "it has another shape"


def _multirc(row: Mapping[str, Any]) -> list[Row]:
    passage = row["passage"]
    return [
        {"paragraph": passage["text"], "question": q["question"], "answer": a["text"], "label": a.get("label")}
        for q in passage["questions"]
        for a in q["answers"]
    ]


def _record(row: Mapping[str, Any]) -> list[Row]:
    text = row["passage"]["text"]
    entities = list(dict.fromkeys(_span(text, e["start"], e["end"]) for e in row["passage"]["entities"]))
    return [
        {
            "passage": text,
            "query": q["query"],
            "entities": entities,
            "answers": list(dict.fromkeys(a["text"] for a in q.get("answers", ()))),
        }
        for q in row["qas"]
    ]


def _span(text: str, start: int, end: int) -> str:
    if not 0 <= start <= end < len(text):
        raise ValueError(f"an entity from {start} to {end} in a passage of {len(text)} characters")
    return text[start : end + 1].strip()


def _wsc(row: Mapping[str, Any]) -> list[Row]:
    spans = {name: row["target"][name] for name in ("span1_text", "span2_text")}
    return [{"text": row["text"], "label": row.get("label"), **spans}]


MULTIRC = Unfold("passage", ("passage",), _multirc)
RECORD = Unfold("qas", ("passage", "qas"), _record)
WSC = Unfold("target", ("text", "label", "target"), _wsc)
