"""Which files on a disk a data set's name means, and which of them are which split.

    FOLDER    SPLIT.jsonl (or another of formats.py), or a series of it; SPLIT/, a folder with one file, a series, or
              images as CLASS/*.jpg; SPLIT.zip with the same in it; or a folder that save_to_disk wrote. If there is
              nothing of this, its folder data/ is looked into, as repositories on the hub are laid out
    FILE      one split, which its stem may name, else the training data; an archive.zip is a folder
    PATTERN   its files, as in a folder (patterns.py)

    series    SPLIT-00000-of-00002, ...: complete; or SPLIT_0, SPLIT_1, ... from 0 or 1 on without a gap, where there is
              no file SPLIT. Any other number behind a name is part of the name: train_10 is no part of train

Promise  a path that exists is that path, whatever characters it has; only one that does not can be a pattern. What
         cannot be told is an error that names the files, never a guess.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..errors import DataError, did_you_mean
from .arrow import is_saved, saved_splits
from .formats import FORMATS, NAMED, read_rows
from .lines import endings
from .patterns import is_pattern, of_pattern
from .pictures import holds_classes
from .series import KINDS, NAME_ONE, NUMBERED, Found, may_hold, numbered_files, series, stem_of
from .tree import Node, OnDisk, unzipped
from .whole import inner, nothing_in, other_names, saved, says_held_out, split_folder, whole


def literal(data: str) -> Path | None:
    """The path that `data` is, if there is one."""
    for name in (data, os.path.expanduser(data)):  # noqa: PTH111 pathlib's raises where there is no such home
        if os.path.lexists(name):
            return Path(name)
    return None


def is_local(data: str) -> bool:
    """Whether `data` is a path rather than a hub name."""
    ending = endings(data)[1]
    return (
        literal(data) is not None
        or is_pattern(data)
        or ending in FORMATS
        or ending == ".zip"
        or data[:1] in "./~"
        or data.count("/") > 1
    )


def find(data: str, splits: Sequence[str], train_split: str) -> dict[str, Found]:
    """Where each of `splits` lies. DataError if one is not there, or may be any of several files."""
    path = literal(data)
    if path is None and is_pattern(data):
        found, names = of_pattern(data, splits, train_split)
    elif path is None or not path.exists():
        dangling = "is a link to nothing" if path else "does not exist"
        raise DataError(f"task.data={data!r} {dangling}: there are no {NAMED} files and no SPLIT/CLASS/ images")
    else:
        found, names = _of_node(OnDisk(path), splits, train_split)
    if not found and not names:
        raise DataError(f"task.data={data!r} holds no {NAMED} files and no SPLIT/CLASS/ folders of images")
    for split in splits:
        if split not in found:
            folder = (
                "" if path is None or path.is_dir() else f"; task.data={str(path.parent)!r} would be all of its folder"
            )
            raise DataError(
                f"task.data={data!r} has no split {split!r}{did_you_mean(split, names)}; "
                f"task.train_split and task.eval_splits name the splits to use{folder}"
            )
    if len(kinds := sorted({found[split].kind for split in splits})) > 1:
        raise DataError(
            f"task.data={data!r} holds files of different kinds ({', '.join(kinds)}); name one kind: 'PATH/*.jsonl'"
        )
    return {split: found[split] for split in splits}


def _of_node(node: Node, splits: Sequence[str], train_split: str) -> tuple[dict[str, Found], list[str]]:
    """What is found of the splits, and the names of all there are."""
    stem, ending, _ = endings(node.name)
    single: Found | None = None
    if node.is_folder or ending == ".zip":
        folder = node if node.is_folder else inner(unzipped(node), splits)
        nameless = is_saved(folder) and saved_splits(folder) is None
        if nameless or (not node.is_folder and holds_classes(folder)):
            single = split_folder(folder)
        else:
            found, names = _of_folder(folder, splits, train_split)
            if found or node.is_folder or len(names) != 1 or says_held_out(names[0]):
                return found, names
            single = split_folder(folder)
            if single is None:
                raise nothing_in(node, folder)
    elif ending in FORMATS:
        single = Found([(read_rows, node)], KINDS[ending])
    else:
        with node.open():  # says what it is, if it is no file
            raise DataError(f"{node.where}: no {NAMED} file")
    named = [split for split in splits if NUMBERED.sub("", stem) in (split, *other_names(split))]
    name = named[0] if named else train_split
    return {name: single} if single else {}, [name]


def _of_folder(folder: Node, splits: Sequence[str], train_split: str) -> tuple[dict[str, Found], list[str]]:
    nodes = folder.children()
    if is_saved(folder):
        return _of_saved(folder, splits, train_split)
    found = {split: there for split in splits if (there := _split(nodes, split))}
    names = sorted({NUMBERED.sub("", stem_of(node)) for node in nodes if may_hold(node)})
    below = next((node for node in nodes if node.is_folder and node.name == "data"), None)
    if below and not found:
        return _of_folder(below, splits, train_split)
    return found, names


def _of_saved(folder: Node, splits: Sequence[str], train_split: str) -> tuple[dict[str, Found], list[str]]:
    """What save_to_disk wrote: one data set without a name, or splits by their names."""
    there = saved_splits(folder)
    if there is None:
        return {train_split: saved(folder)}, [train_split]

    def named(name: str) -> list[str]:
        return [own for own in there if own == name] or [own for own in there if own.lower() == name.lower()]

    found = {}
    for split in splits:
        names = named(split) or [own for other in other_names(split) for own in named(other)]
        if len(names) > 1:
            where = " and ".join(there[name].where for name in names)
            raise DataError(f"{where} may both be the split {split!r}; task.train_split and task.eval_splits name one")
        for name in names:
            note = () if name.lower() == split.lower() else (f"{split}: taken from {name}",)
            found[split] = Found(saved(there[name]).files, "arrow", note)
    return found, list(there)


def _split(nodes: Sequence[Node], split: str) -> Found | None:
    """The files of a split among those of a folder, by its name or another that it goes by."""
    if there := _named(nodes, split):
        return there
    others = {name: there for name in other_names(split) if (there := _named(nodes, name))}
    if len(others) > 1:
        where = " and ".join(there.files[0][1].where for there in others.values())
        raise DataError(f"{where} may both be the split {split!r}; {NAME_ONE}")
    for name, there in others.items():
        return Found(there.files, there.kind, (*there.notes, f"{split}: taken from {name}"))
    return None


def _named(nodes: Sequence[Node], name: str) -> Found | None:
    nodes = [node for node in nodes if may_hold(node)]
    exact = [node for node in nodes if stem_of(node) == name]
    exact = exact or [node for node in nodes if stem_of(node).lower() == name.lower()]
    held = [there for node in exact if (there := whole(node))]
    if len(held) > 1:
        raise DataError(f"{' and '.join(node.where for node in exact)}: which is the split {name!r}? {NAME_ONE}")
    numbered = numbered_files((node for node in nodes if not node.is_folder), name)
    if held:
        beside = [node.where for group in numbered.values() for node in group.values()]
        some = ", ".join(beside[:3]) + (f" and {len(beside) - 3} more" if len(beside) > 3 else "")
        note = (f"{name}: {some} beside it {'is' if len(beside) == 1 else 'are'} not read",) if beside else ()
        return Found(held[0].files, held[0].kind, (*held[0].notes, *note))
    if exact and not numbered:
        raise DataError(f"{exact[0].where}: a folder without {NAMED} files and without images as CLASS/*.jpg in it")
    return series(numbered, name) if numbered else None
