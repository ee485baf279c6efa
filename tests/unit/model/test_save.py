"""A folder that leaves has all that loading reads, no code and no pickle, usual rights, and is whole or not there."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from hpcfed.config import ModelConfig
from hpcfed.errors import ConfigError
from hpcfed.model import load_model, save_model
from tests.support.folders import file_size
from tests.support.small import save_tiny_folder

SIDE = {
    "chat_template.jinja": "{{ messages }}",
    "added_tokens.json": "{}",
    "spiece.model": "",
    "spm.model": "a",
    "sentencepiece.bpe.model": "b",
    "special_tokens_map.json": "{}",
    "generation_config.json": '{"max_new_tokens": 3}',
    "processor_config.json": "{}",
}
LEFT = ("modeling_own.py", "pytorch_model.bin", "optimizer.pt", "training_args.bin", "notes.txt", "README.md")


def saved(base: Path, out: Path, kind: str = "causal-lm", labels: tuple[str, ...] = (), pad: str | None = None) -> Path:
    config = ModelConfig(name=str(base))
    assert save_model(load_model(config, kind, labels), config, labels, pad, "a page", out) == []
    return out


def test_side_files_come_along_and_nothing_else(tmp_path: Path):
    base = save_tiny_folder(tmp_path, "llama")
    for name, text in SIDE.items():
        (base / name).write_text(text)
    for name in LEFT:
        (base / name).write_text("x")
    out = saved(base, tmp_path / "out")
    assert SIDE.keys() <= {file.name for file in out.iterdir()}
    assert not {file.name for file in out.iterdir()} & set(LEFT[:-1]) and (out / "README.md").read_text() == "a page"
    assert AutoTokenizer.from_pretrained(out).chat_template == "{{ messages }}"
    assert json.loads((out / "generation_config.json").read_text())["max_new_tokens"] == 3


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_rights_follow_the_umask(tmp_path: Path, umask: int):
    base, before = save_tiny_folder(tmp_path, "opt"), os.umask(umask)
    try:
        out = saved(base, tmp_path / "out")
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in out.iterdir()} == {0o666 & ~umask}


def test_class_names_and_pad_token(tmp_path: Path):
    base = save_tiny_folder(tmp_path, "llama", "sequence-classification", labels=3, pad=False)
    config = json.loads((base / "config.json").read_text())
    out = saved(base, tmp_path / "out", "sequence-classification", ("red", "green", "blue"), "</s>")
    written = json.loads((out / "config.json").read_text())
    assert written["id2label"] == {"0": "red", "1": "green", "2": "blue"} and written["label2id"]["blue"] == 2
    assert written["pad_token_id"] == config["pad_token_id"] == 1  # a configuration's own is left alone
    assert AutoTokenizer.from_pretrained(out).pad_token == "</s>"


def test_images_without_a_processor_get_what_was_done_to_them(tmp_path: Path):
    out = saved(save_tiny_folder(tmp_path, "vit"), tmp_path / "out", "image-classification", ("a", "b"))
    said = json.loads((out / "preprocessor_config.json").read_text())
    assert said["size"] == {"height": 8, "width": 8} and said["image_mean"] == said["image_std"] == [0.5]


@pytest.mark.parametrize("there", [False, True])
def test_a_full_disk_leaves_nothing(tmp_path: Path, there: bool):
    base, out = save_tiny_folder(tmp_path, "opt"), tmp_path / "out"
    config = ModelConfig(name=str(base))
    model = load_model(config, "causal-lm")
    if there:
        out.mkdir()
    before = sorted(tmp_path.rglob("*"))
    with file_size(20_000), pytest.raises(ConfigError, match=r"--out .*out: cannot write the model: "):
        save_model(model, config, (), None, "", out)
    assert sorted(tmp_path.rglob("*")) == before
    saved(base, out)
    assert torch.equal(load_model(ModelConfig(name=str(out)), "causal-lm").lm_head.weight, model.lm_head.weight)


def test_a_file_in_the_way(tmp_path: Path):
    base, file = save_tiny_folder(tmp_path, "opt"), tmp_path / "file"
    file.write_text("x")
    config = ModelConfig(name=str(base))
    with pytest.raises(ConfigError, match="cannot write the model"):
        save_model(load_model(config, "causal-lm"), config, (), None, "", file / "out")
