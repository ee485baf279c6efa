"""What one file or folder holds that is a split, whatever it is called, and what else a split may be called.

Promise  all data of a folder are read, or what is not is told
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..errors import DataError
from .arrow import is_saved, read_arrow, saved_files
from .formats import NAMED, is_data, read_rows
from .lines import endings
from .pictures import holds_classes, is_picture, of_archive, read_pictures
from .series import KINDS, PART, Found, may_hold, put, series, stem_of
from .tree import Node, unzipped

#: What a split may be called besides.
ALIASES = {"validation": ("dev", "valid", "val", "eval"), "train": ("training",), "test": ("testing",)}
#: Names of data to evaluate on, with a number, or more words, behind them.
_HELD_OUT = re.compile(
    rf"({'|'.join(name for known in ('validation', 'test') for name in (known, *ALIASES[known]))})([-_.\d].*)?",
    re.IGNORECASE | re.DOTALL,
)


def other_names(split: str) -> list[str]:
    """What else the split may be called: dev_matched for validation_matched."""
    return [
        other + split.removeprefix(known)
        for known, others in ALIASES.items()
        if split == known or split.startswith(f"{known}_")
        for other in others
    ]


def says_held_out(name: str) -> bool:
    """Whether a file or a folder is called like data to evaluate on."""
    return _HELD_OUT.fullmatch(endings(name)[0] if is_data(name) else name) is not None


def whole(node: Node) -> Found | None:
    """What one file or folder holds; None of a folder without data."""
    if node.is_folder:
        return split_folder(node)
    if endings(node.name)[1] == ".zip":
        folder = inner(unzipped(node), ())
        there = split_folder(folder)
        if there is None:
            raise nothing_in(node, folder)
        return there
    return Found([(read_rows, node)], KINDS[endings(node.name)[1]])


def split_folder(folder: Node) -> Found | None:
    """A folder that is one split."""
    if is_saved(folder):
        return saved(folder)
    images = of_archive(folder)
    if holds_classes(images):
        return Found([(read_pictures, images)], "images")
    files = [node for node in folder.children() if not node.is_folder and is_data(node.name) and may_hold(node)]
    if not files:
        return None
    notes = _unread(folder)
    if len(files) == 1:
        return Found([(read_rows, files[0])], KINDS[endings(files[0].name)[1]], notes)
    groups: dict[tuple[str, str, str], dict[int, Node]] = {}
    for node in files:
        match = PART.fullmatch(stem_of(node))
        part, at, base, mark, number, total = match.groups() if match else (None, None, stem_of(node), "", None, None)
        # A file without a number may be the whole of those with one: it is a series by itself.
        kind = "whole" if match is None else mark or ""
        put(groups, (part or base, kind, total or ""), int(at or number or 0), node)
    there = series(groups, folder.name)
    return Found(there.files, there.kind, notes)


def _unread(folder: Node) -> tuple[str, ...]:
    """A note on data below a split's folder that has its files right in it."""
    left = [node for node in folder.children() if _holds_data(node) and (node.is_folder or not is_data(node.name))]
    some = ", ".join(node.where for node in left[:3]) + (f" and {len(left) - 3} more" if len(left) > 3 else "")
    which = "is" if len(left) == 1 else "are"
    return (f"{folder.where}: its files are read, {some} beside them {which} not",) if left else ()


def _holds_data(node: Node) -> bool:
    if node.is_folder:
        return any(map(_holds_data, node.children()))
    return is_picture(node) or may_hold(node)


def inner(folder: Node, splits: Sequence[str]) -> Node:
    """What an archive holds, which often has a folder around it, and a file about it beside that."""
    named = {name for split in splits for name in (split, *other_names(split))}
    while not is_saved(folder) and not holds_classes(folder):
        inside = [node for node in folder.children() if may_hold(node)]
        if len(inside) != 1 or not inside[0].is_folder or inside[0].name in named or says_held_out(inside[0].name):
            break
        folder = inside[0]
    return folder


def nothing_in(archive: Node, folder: Node) -> DataError:
    """That an archive, or the folder in it, holds no data, and what it holds instead."""
    if packed := [node for node in folder.children() if endings(node.name)[1] == ".zip"]:
        return DataError(f"{archive.where}: holds an archive, {packed[0].name}, which is not looked into; unpack it")
    return DataError(f"{archive.where}: holds no {NAMED} files and no CLASS/ folders of images")


def saved(folder: Node) -> Found:
    """What save_to_disk wrote of one data set."""
    return Found([(read_arrow, file) for file in saved_files(folder)], "arrow")
