"""Files that are parts of one split, by their names.

    SPLIT-00000-of-00002, ...   complete, from 0 or 1 on
    SPLIT_0, SPLIT_1, ...       from 0 or 1 on without a gap

Promise  a number behind a name makes a file a part of nothing unless all parts are there; a missing part is named
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ..errors import DataError
from .formats import is_data, read_rows
from .lines import endings
from .rows import Rows
from .tree import Node

Reader = Callable[[Node, Sequence[str]], Rows]
ABOUT = {"labels.json", "dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json"}
KINDS = {".jsonl": "json", ".ndjson": "json", ".json": "json", ".tsv": "csv", ".csv": "csv", ".parquet": "parquet"}
NUMBERED = re.compile(
    r"[-_.](\d{1,18})(?:[-_]of[-_](\d{1,18})(?:-[0-9a-f]{16})?)?$"
)  # the hub's own copies end in a hash
PART = re.compile(
    r"(part)-(\d{1,18})-(?!of[-_])[\w.-]+$|(.*?)([-_.]?)(\d{1,18})(?:[-_]of[-_](\d{1,18})(?:-[0-9a-f]{16})?)?$"
)
NAME_ONE = "name one by task.data=FILE, or by task.train_split and task.eval_splits=[STEM]"


@dataclass(frozen=True)
class Found:
    """Where a split lies.  files: in their order.  notes: what the user should know of how they were found."""

    files: list[tuple[Reader, Node]]
    kind: str
    notes: tuple[str, ...] = ()


def may_hold(node: Node) -> bool:
    """Whether it may be a split, or a part of one."""
    if node.is_folder:
        return True
    return (is_data(node.name) or endings(node.name)[1] == ".zip") and node.name not in ABOUT


def stem_of(node: Node) -> str:
    return endings(node.name)[0] if not node.is_folder or is_data(node.name) else node.name


def numbered_files(nodes: Iterable[Node], name: str) -> dict[tuple[str, str, str], dict[int, Node]]:
    """Files that are called so with a number behind: (name, separator, how many, if it says so) -> number -> file."""
    groups: dict[tuple[str, str, str], dict[int, Node]] = {}
    for node in nodes:
        stem = stem_of(node)
        match = NUMBERED.search(stem)
        if match and stem[: match.start()].lower() == name.lower():
            put(groups, (name, match[0][0], match[2] or ""), int(match[1]), node)
    return groups


def put(
    groups: dict[tuple[str, str, str], dict[int, Node]], key: tuple[str, str, str], number: int, node: Node
) -> None:
    group = groups.setdefault(key, {})
    if number in group:
        raise DataError(f"{group[number].where} and {node.where}: which is part {number}? {NAME_ONE}")
    group[number] = node


def series(groups: dict[tuple[str, str, str], dict[int, Node]], split: str) -> Found:
    """The files of the only series there is, complete."""
    if len(groups) > 1:
        some = [next(iter(group.values())).where for group in groups.values()]
        raise DataError(
            f"{' and '.join(some[:3])} are not parts of one series: what is the split {split!r}? {NAME_ONE}"
        )
    ((_, _, total), group), *_ = groups.items()
    numbers = sorted(group)
    files = [group[number] for number in numbers]
    first = numbers[0] if numbers[0] in (0, 1) else 0
    wanted = range(first, first + int(total)) if total else range(first, first + len(numbers))
    if (gap := next((number for number in wanted if number not in group), None)) is not None:
        named = f"part {gap} of {int(total)}" if total else f"part {gap}"
        cure = "fetch it, or" if total else "parts are numbered from 0 or 1 on;"
        raise DataError(
            f"{', '.join(file.where for file in files[:3])}: {named} of the split {split!r} is missing; "
            f"{cure} {NAME_ONE}"
        )
    if extra := [number for number in numbers if number not in wanted]:
        raise DataError(f"{group[extra[0]].where}: there are only {int(total)} parts; {NAME_ONE}")
    kinds = {KINDS[endings(file.name)[1]] for file in files}
    if len(kinds) > 1:
        raise DataError(f"{files[0].where} and others: files of different kinds ({', '.join(sorted(kinds))})")
    return Found([(read_rows, file) for file in files], kinds.pop())
