"""Which files a pattern means, and which of them are which split.

Promise  what a file's name says of its split holds for patterns, too: evaluation data are no training data unless they
         are asked for by name
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Sequence
from pathlib import Path

from ..errors import DataError
from .formats import NAMED
from .series import NAME_ONE, NUMBERED, Found, may_hold, numbered_files, series, stem_of
from .tree import Node, OnDisk
from .whole import other_names, says_held_out, whole


def is_pattern(data: str) -> bool:
    """Whether `data` would mean several files, if no file is called so."""
    return any(c in data for c in "*?[")


def of_pattern(data: str, splits: Sequence[str], train_split: str) -> tuple[dict[str, Found], list[str]]:
    """What is found of the splits, and the names of all there are."""
    base = Path(os.path.expanduser(data))  # noqa: PTH111 pathlib's raises where there is no such home
    chosen: dict[Path, tuple[str, ...]] = {Path(base.anchor): ()}
    for part in base.parts[1:] if base.anchor else base.parts:
        chosen = {path: (*names, *own) for above, names in chosen.items() for path, own in _matching(above, part)}
    nodes: list[Node] = [node for path in sorted(chosen) if may_hold(node := OnDisk(path))]
    if not nodes:
        raise DataError(
            f"task.data={data!r} does not exist, and as a pattern fits no {NAMED} files or folders of images"
        )
    if len(nodes) == 1 and not any(c in data for c in "*?"):  # brackets stand in names, too
        raise DataError(
            f"task.data={data!r} does not exist; as a pattern it would be {nodes[0].where} alone: "
            "if that is meant, name it"
        )
    found = {split: there for split in splits if (there := _listed(nodes, split))}
    if train_split in splits and train_split not in found:
        asked = says_held_out(train_split)
        rest = [node for node in nodes if asked or not any(map(says_held_out, chosen[Path(node.where)]))]
        taken = {at.where for there in found.values() for _, at in there.files}
        if rest := [node for node in rest if node.where not in taken]:
            found[train_split] = _joined(rest, train_split)
    if train_split in found:
        found[train_split] = _with_left_out(found, nodes, train_split)
    return found, sorted({NUMBERED.sub("", stem_of(node)) for node in nodes})


def _with_left_out(found: dict[str, Found], nodes: Sequence[Node], train_split: str) -> Found:
    """The training data, with a note on what the pattern fits and is no split's."""
    used = [at.where for there in found.values() for _, at in there.files]
    left = [n.where for n in nodes if not any(at == n.where or at.startswith(f"{n.where}{os.sep}") for at in used)]
    train = found[train_split]
    if not left:
        return train
    some = ", ".join(left[:3]) + (f" and {len(left) - 3} more" if len(left) > 3 else "")
    fits = "fits the pattern but is" if len(left) == 1 else "fit the pattern but are"
    note = f"{train_split}: {some} {fits} not read: by name, no training data"
    return Found(train.files, train.kind, (*train.notes, note))


def _matching(folder: Path, part: str) -> list[tuple[Path, tuple[str, ...]]]:
    """What is called `part` in the folder; if nothing is, what fits it as a pattern, and the names that were so chosen.

    ** is the folder and all below.
    """
    if os.path.lexists(folder / part):
        return [(folder / part, ())]
    if not is_pattern(part) or not folder.is_dir():
        return []
    if part == "**":
        below = [Path(above) for above, *_ in os.walk(folder)]
        return [(path, path.relative_to(folder).parts) for path in sorted(below)]
    fitting = [node.name for node in OnDisk(folder).children() if fnmatch.fnmatchcase(node.name, part)]
    return [(folder / name, (name,)) for name in fitting]


def _listed(nodes: Sequence[Node], split: str) -> Found | None:
    """The files of a split among those that a pattern fits."""
    for name in (split, *other_names(split)):
        exact = [node for node in nodes if stem_of(node) == name]
        numbered = [
            node for node in nodes if NUMBERED.search(stem_of(node)) and NUMBERED.sub("", stem_of(node)) == name
        ]
        if exact and numbered:
            raise DataError(
                f"{exact[0].where} and {numbered[0].where} both fit the pattern, but the second may be a part of the "
                f"first; {NAME_ONE}"
            )
        if exact or numbered:
            note = () if name == split else (f"{split}: taken from {name}",)
            there = _joined(exact or numbered, split)
            return Found(there.files, there.kind, (*there.notes, *note))
    return None


def _joined(nodes: Sequence[Node], split: str) -> Found:
    """All of the files; of a series that says how many there are, those that are nowhere are missed."""
    seen: dict[str, Node] = {}
    parts = []
    for node in nodes:
        there = whole(node)
        if there is None:
            continue
        stem = str(Path(node.where).with_name(stem_of(node)))
        if stem in seen:
            raise DataError(f"{seen[stem].where} and {node.where}: which is the split {split!r}? {NAME_ONE}")
        seen[stem] = node
        parts.append(there)
        match = NUMBERED.search(stem_of(node))
        if match and match[2]:
            base = stem_of(node)[: match.start()]
            beside = filter(may_hold, OnDisk(Path(node.where).parent).children())
            series({key: group for key, group in numbered_files(beside, base).items() if key[2] == match[2]}, split)
    if not parts:
        raise DataError(f"{nodes[0].where}: a folder without {NAMED} files and without images as CLASS/*.jpg in it")
    if len(kinds := {there.kind for there in parts}) > 1:
        raise DataError(
            f"{nodes[0].where} and others: files of different kinds ({', '.join(sorted(kinds))}); name one kind: "
            "'PATH/*.jsonl'"
        )
    notes = tuple(note for there in parts for note in there.notes)
    return Found([file for there in parts for file in there.files], kinds.pop(), notes)
