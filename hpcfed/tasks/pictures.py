"""Images as files: SPLIT/CLASS/*.png, on a disk or in a zip archive.

Promise  a class is the name of the folder that an image lies in, right below its split; images come in the order of
         their paths; a file that is no picture is left out and counted, what only describes the data is passed over,
         and labels in a file beside the folders are refused, for they may say otherwise
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import DataError
from .formats import FORMATS, read_rows
from .images import decoded
from .lines import endings
from .rows import Rows
from .tree import Node, walk

PICTURES = frozenset(
    """.jpg .jpeg .jfif .jpe .png .apng .bmp .dib .webp .gif .tif .tiff .ppm .pgm .pbm .pnm .jp2 .j2k .tga .ico .avif
    .pcx .sgi .icns .dds""".split()  # noqa: SIM905
)
#: Stems of files that describe the data.
ABOUT = frozenset(("labels", "dataset_infos", "dataset_info", "dataset_dict", "state", "readme", "license"))


def is_picture(node: Node) -> bool:
    """By its name."""
    return not node.is_folder and endings(node.name)[1] in PICTURES


def holds_classes(folder: Node) -> bool:
    """Whether images lie in folders of it."""
    return any(node.is_folder and any(map(is_picture, node.children())) for node in folder.children())


def of_archive(root: Node) -> Node:
    """The folder with the classes: an archive may have it inside another one."""
    while not holds_classes(root):
        folders = [node for node in root.children() if node.is_folder]
        if len(folders) != 1 or any(map(_is_table, root.children())):
            break
        root = folders[0]
    return root


def _is_table(node: Node) -> bool:
    """Whether a file may hold rows of its own."""
    stem, ending, _ = endings(node.name)
    return not node.is_folder and ending in FORMATS and stem.lower() not in ABOUT | {"metadata"}


class PictureRows(Rows):
    """Images of one split.  folders: the class of each."""

    image = "image"

    def __init__(self, where: str, files: list[Node], folders: list[str], left_out: dict[str, int]) -> None:
        super().__init__(where, ["image"], len(files))
        self._files, self.folders, self.left_out = files, folders, left_out

    def picture(self, i: int) -> Any:
        with self._files[i].open() as raw:
            return decoded(raw, self._files[i].where)


def read_pictures(folder: Node, label: Sequence[str]) -> PictureRows:
    """The images in the class folders of `folder`.  label: columns of a file beside them that would name classes."""
    found: list[tuple[str, str, Node]] = []
    left_out: dict[str, int] = {}
    for path, file in walk(folder):
        stem, ending, _ = endings(file.name)
        *above, _ = path.split("/")
        if is_picture(file):
            if len(above) != 1:
                raise DataError(
                    f"{file.where}: lies {'in no' if not above else 'deeper than in a'} class folder; images must be "
                    f"at {folder.where}/CLASS/{file.name}"
                )
            found.append((path, above[0], file))
        elif stem.lower() == "metadata":
            _check_metadata(file, label)
        elif stem.lower() not in ABOUT:
            reason = f"no picture: {ending or 'without an ending'}"
            left_out[reason] = left_out.get(reason, 0) + 1
    found.sort(key=lambda entry: entry[0])
    return PictureRows(folder.where, [file for *_, file in found], [name for _, name, _ in found], left_out)


def _check_metadata(file: Node, label: Sequence[str]) -> None:
    if endings(file.name)[1] not in FORMATS:
        return
    rows = read_rows(file, label)
    if told := [name for name in label if name in rows.names]:
        raise DataError(
            f"{file.where}: has labels of its own (column {told[0]!r}), but the class of an image is its folder; move "
            "it away, or sort the images into the folders that it names"
        )
