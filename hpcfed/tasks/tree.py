"""Files and folders of a data set, on a disk or inside a zip archive, by their exact names.

Promise  a name is a name: nothing in it is expanded, matched or taken for the address of something else; nothing is
         unpacked to a disk, so no temporary folder is needed
"""

from __future__ import annotations

import io
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

from ..errors import DataError, first_line

#: What unpacking raises: a damaged archive, one with a password, a way of packing that is not built in.
UNZIP = (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError, ValueError)


class Node(Protocol):
    """A file or a folder.  name: the last part of its path.  where: how messages call it."""

    @property
    def name(self) -> str: ...

    @property
    def where(self) -> str: ...

    @property
    def is_folder(self) -> bool: ...

    def children(self) -> list[Node]:
        """What lies in the folder, by name; hidden files and what systems leave behind are not listed."""

    def open(self) -> BinaryIO:
        """The file's bytes, from its beginning; may be sought in."""


@dataclass(frozen=True)
class OnDisk:
    """A path."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name or self.path.absolute().name

    @property
    def where(self) -> str:
        return str(self.path)

    @property
    def is_folder(self) -> bool:
        return self.path.is_dir()

    def children(self) -> list[Node]:
        try:
            return [OnDisk(path) for path in sorted(self.path.iterdir()) if not _left_behind(path.name)]
        except OSError as e:
            raise DataError(f"{self.where}: cannot be listed: {e.strerror}") from None

    def open(self) -> BinaryIO:
        try:
            mode = self.path.stat().st_mode
            if stat.S_ISDIR(mode):
                raise DataError(f"{self.where}: is a folder, not a file")
            if not stat.S_ISREG(mode):  # a pipe would be waited for, and could be read once only
                raise DataError(f"{self.where}: is no regular file but a pipe, a socket or a device")
            return self.path.open("rb")
        except OSError as e:
            raise DataError(f"{self.where}: cannot be read: {e.strerror}") from None


@dataclass(frozen=True)
class Zipped:
    """A member of an archive.  member: its name there; a folder's has `inside`, what lies in it."""

    archive: zipfile.ZipFile
    where: str
    name: str
    member: str = ""
    inside: dict[str, Zipped] | None = field(default=None, compare=False)

    @property
    def is_folder(self) -> bool:
        return self.inside is not None

    def children(self) -> list[Node]:
        return [node for name, node in sorted((self.inside or {}).items()) if not _left_behind(name)]

    def open(self) -> BinaryIO:
        try:
            return io.BytesIO(self.archive.read(self.member))
        except UNZIP as e:
            raise DataError(f"{self.where}: cannot be unpacked: {first_line(e)}") from None


def _left_behind(name: str) -> bool:
    return name.startswith(".") or name.lower() in ("__macosx", "__pycache__", "thumbs.db", "desktop.ini")


def unzipped(file: Node) -> Zipped:
    """The archive as a folder. DataError if it is none."""
    try:
        archive = zipfile.ZipFile(file.open())
    except UNZIP as e:
        raise DataError(f"{file.where}: cannot be unpacked: {first_line(e)}") from None
    root = Zipped(archive, file.where, file.name, inside={})
    for member in archive.namelist():
        folder = root
        *above, name = [part for part in member.split("/") if part not in ("", ".")] or [""]
        for part in [*above, name] if member.endswith("/") else above:
            assert folder.inside is not None
            below = folder.inside.get(part)
            if part and (below is None or below.inside is None):
                below = Zipped(archive, f"{folder.where}/{part}", part, inside={})
                folder.inside[part] = below
            folder = below or folder
        if name and not member.endswith("/"):
            assert folder.inside is not None
            folder.inside[name] = Zipped(archive, f"{folder.where}/{name}", name, member)
    return root


def walk(folder: Node) -> Iterator[tuple[str, Node]]:
    """All files below the folder, with their paths from there, folder by folder."""
    for node in folder.children():
        if node.is_folder:
            yield from ((f"{node.name}/{path}", below) for path, below in walk(node))
        else:
            yield node.name, node
