"""Is what lies in a model's folder what it is named: whole files, no pointers to files, no code to be run?

Promise  every complaint names the file and what would be right; nothing is loaded, and no code of the folder is run
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from ..errors import ConfigError, first_line

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_OTHERS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.gguf")
_TOKENIZER = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "*.model")
ADAPTER = "adapter_config.json"  # how peft calls it
_POINTER = b"version https://git-lfs"  # how a Git LFS pointer begins


def check_files(name: str, folder: Path, *patterns: str) -> None:
    """ConfigError if a file of the folder that matches is a Git LFS pointer.  name: what model.name says."""
    _refuse_pointers(name, (file for pattern in patterns for file in sorted(folder.glob(pattern))))


def check_tokenizer(name: str, folder: Path) -> None:
    """The same of the files that a tokenizer is read from."""
    check_files(name, folder, *_TOKENIZER)


def check_weights(name: str, folder: Path) -> None:
    """ConfigError if the folder's weights are not there, not in safetensors, not all there, or pointers."""
    if not folder.is_dir():
        return
    if (folder / ADAPTER).is_file():
        raise ConfigError(
            f"model.name={name!r}: an adapter lies beside the model ({ADAPTER}), which is not read; merge it into the "
            "weights with peft's merge_and_unload() and save_pretrained(), or take its files away"
        )
    if not any(folder.glob("*.safetensors")):
        others = sorted(path.name for pattern in _OTHERS for path in folder.glob(pattern))
        if (folder / INDEX).is_file():
            cure = f"though {INDEX} names parts of one: copy them, too"
        elif others:
            cure = f"only {', '.join(others)}: load it once with transformers and write it with save_pretrained()"
        else:
            cure = "and no other weights"
        raise ConfigError(f"model.name={name!r}: no model.safetensors in the folder, {cure}")
    files = [folder / SINGLE]
    if not files[0].is_file() and (folder / INDEX).is_file():
        _refuse_pointers(name, [folder / INDEX])
        files = [folder / part for part in _parts(name, folder / INDEX)]
        if absent := [file.name for file in files if not file.is_file()]:
            raise ConfigError(
                f"model.name={name!r}: {INDEX} names {len(files)} files, and {len(absent)} of them are not in the "
                f"folder (first {absent[0]}); copy the whole model"
            )
    _refuse_pointers(name, [file for file in files if file.is_file()])


def _parts(name: str, index: Path) -> list[str]:
    try:
        return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise ConfigError(f"model.name={name!r}: {INDEX} cannot be read: {first_line(e)}") from None


def _refuse_pointers(name: str, files: Iterable[Path]) -> None:
    for file in files:
        if not file.is_file():
            continue
        with file.open("rb") as opened:
            pointer = opened.read(len(_POINTER)) == _POINTER
        if pointer:
            raise ConfigError(
                f"model.name={name!r}: {file.name} is not the file but a Git LFS pointer to it; get the files with "
                f"git lfs pull, in {file.parent}"
            )


def brings_tokenizer(folder: Path) -> bool:
    """Whether the folder's tokenizer is of a class whose code lies there, too."""
    try:
        said = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        return "AutoTokenizer" in said["auto_map"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def refuse_code(name: str, what: str) -> ConfigError:
    """The error for a model whose `what` comes with Python code of its own."""
    return ConfigError(
        f"model.name={name!r}: its {what} needs Python code that comes with the model (auto_map), which hpcfed never "
        "runs; use a model whose architecture transformers has, or convert it to one"
    )
