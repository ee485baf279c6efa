"""A model that leaves: a folder that transformers loads, with all that its pipelines need, and a page that explains it.

    save_model(model, base, labels, pad_token, page, out)

Content  weights and configuration, with the names of the classes and the token to pad with; tokenizer or image
         processor as transformers saves them; what else of the base model's files loading reads; README.md
Promise  the folder is whole or, as far as this process lives, not there; its files have the rights that the umask says;
         nothing in it is code or a pickle
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from ..config import ModelConfig
from ..errors import ConfigError, first_line
from .load import PROCESSORS, image_processor, load_config, model_path, quiet

#: What tokenizers, processors and generation read beside what transformers writes for them.
SIDE_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
    "chat_template.json", "vocab.json", "vocab.txt", "merges.txt", "bpe.codes", "entity_vocab.json", "spiece.model",
    "spm.model", "sentencepiece.bpe.model", "tokenizer.model", "source.spm", "target.spm", "dict.txt",
    "generation_config.json", "preprocessor_config.json", "processor_config.json",
)  # fmt: skip
_UNWRITABLE = (OSError, SafetensorError)


def save_model(
    model: Any, base: ModelConfig, labels: Sequence[str], pad_token: str | None, page: str, out: Path
) -> list[str]:
    """Write the folder `out`, which must not be there or be empty; notes for the user.

    labels: names of a classifier's classes, in the order of its logits.  pad_token: that the run had padded with.
    page: README.md.  Raises ConfigError if it cannot be written.
    """

    def write(folder: Path) -> list[str]:
        notes = _write_processor(model, base, pad_token, folder)
        _describe(model, base, labels)
        with quiet():
            model.save_pretrained(folder)
        for name in SIDE_FILES:
            if not (folder / name).exists() and (file := _base_file(base, name)):
                shutil.copyfile(file, folder / name)
        (folder / "README.md").write_text(page, encoding="utf-8")
        return notes

    try:
        return write_folder(out, write)
    except _UNWRITABLE as e:
        raise ConfigError(
            f"--out {out}: cannot write the model: {getattr(e, 'strerror', None) or first_line(e)}"
        ) from None


def write_folder(out: Path, write: Callable[[Path], list[str]]) -> list[str]:
    """What `write` gives, which makes the content in a folder beside `out`, or within it where that is there already.

    What it raises leaves `out` as it was. Within, files move up one by one, config.json last: a crash on the way leaves
    no folder that loads.
    """
    there = out.is_dir()
    fresh = out / ".new" if there else out.with_name(out.name + ".new")
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    try:
        notes = write(fresh)
        rights = (fresh / "README.md").stat().st_mode & 0o777
        for file in fresh.rglob("*"):
            if file.is_file():
                file.chmod(rights)
        if not there:
            fresh.rename(out)
            return notes
        for entry in sorted(fresh.iterdir(), key=lambda entry: entry.name == "config.json"):
            entry.rename(out / entry.name)
        return notes
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _describe(model: Any, base: ModelConfig, labels: Sequence[str]) -> None:
    """Names of the classes, and what loading changed for training."""
    if "Classification" in type(model).__name__ and len(labels) == model.config.num_labels:
        model.config.id2label = dict(enumerate(labels))
        model.config.label2id = {name: i for i, name in enumerate(labels)}
    if hasattr(original := load_config(base), "use_cache"):
        model.config.use_cache = original.use_cache


def _write_processor(model: Any, base: ModelConfig, pad_token: str | None, folder: Path) -> list[str]:
    import transformers

    image = "ImageClassification" in type(model).__name__
    auto = transformers.AutoImageProcessor if image else transformers.AutoTokenizer
    if image and not any(_base_file(base, name) for name in PROCESSORS):
        (folder / "preprocessor_config.json").write_text(json.dumps(_plain_processor(base), indent=2) + "\n")
        return []
    try:
        with quiet():
            processor = auto.from_pretrained(model_path(base.name), revision=base.revision or "main")
    except Exception as e:  # whatever a malformed file makes the library raise
        return [f"{base.name} has no {'image processor' if image else 'tokenizer'} that loads ({first_line(e)})"]
    if not image:
        _pad(model, processor, pad_token or base.pad_token)
    with quiet():
        processor.save_pretrained(folder)
    return []


def _pad(model: Any, tokenizer: Any, token: str | None) -> None:
    """Pad with `token`, where it is one of the tokenizer's; a configuration that names none gets it."""
    if token is not None and token != tokenizer.pad_token and token in tokenizer.get_vocab():
        tokenizer.pad_token = token
    if tokenizer.pad_token_id is None:
        return
    for config in (model.config, getattr(model, "generation_config", None)):
        if config is not None and getattr(config, "pad_token_id", None) is None:
            config.pad_token_id = tokenizer.pad_token_id


def _plain_processor(base: ModelConfig) -> dict[str, Any]:
    """What hpcfed does to images of a model that does not say how."""
    p = image_processor(base, load_config(base))
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": p.height, "width": p.width},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": p.mean.tolist(),
        "image_std": p.std.tolist(),
    }


def _base_file(base: ModelConfig, name: str) -> Path | None:
    """A file of the base model, in its folder or in the hub's cache; None if it has none of that name."""
    folder = Path(model_path(base.name))
    if folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    from transformers.utils import cached_file

    with contextlib.suppress(OSError), quiet():
        file = cached_file(
            base.name, name, revision=base.revision or "main", _raise_exceptions_for_missing_entries=False
        )
        return Path(file) if file else None
    return None
