"""A model's folder that is not what it seems: named in one line, and none of its code is run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpcfed.config import ModelConfig
from hpcfed.errors import ConfigError
from hpcfed.model import load_model, load_processor, model_kind
from hpcfed.model.folder import INDEX, SINGLE
from hpcfed.model.load import UNLIMITED, positions
from tests.support.small import save_tiny_folder, tiny_model
from tests.support.zoo import zoo_config

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n"


def load(folder: Path) -> None:
    config = ModelConfig(name=str(folder))
    kind = model_kind(config)
    load_processor(config, kind)
    load_model(config, kind)


def change(folder: Path, file: str, **values: object) -> None:
    raw = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(raw | values))


def in_parts(folder: Path) -> list[str]:
    """The weights again, in several files."""
    (folder / SINGLE).unlink()
    tiny_model("opt").save_pretrained(folder, max_shard_size="60kB")
    return sorted(path.name for path in folder.glob("*.safetensors"))


@pytest.mark.parametrize("file", [SINGLE, "config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_pointer_is_called_one(tmp_path, file):
    folder = save_tiny_folder(tmp_path, "opt")
    (folder / file).write_text(POINTER)
    with pytest.raises(ConfigError, match=rf"{file} is not the file but a Git LFS pointer .* git lfs pull"):
        load(folder)


def test_weights_in_parts_must_all_be_there(tmp_path):
    folder = save_tiny_folder(tmp_path, "opt")
    parts = in_parts(folder)
    assert len(parts) > 2
    load(folder)
    raw = (folder / parts[1]).read_bytes()
    (folder / parts[1]).write_text(POINTER)
    with pytest.raises(ConfigError, match=rf"{parts[1]} is not the file but a Git LFS pointer"):
        load(folder)
    (folder / parts[1]).unlink()
    with pytest.raises(ConfigError, match=rf"names {len(parts)} files, and 1 of them are not .*{parts[1]}"):
        load(folder)
    (folder / parts[1]).write_bytes(raw[: len(raw) // 2])
    with pytest.raises(ConfigError, match="its weights cannot be loaded"):
        load(folder)
    (folder / INDEX).write_text('{"weight_map": ["a"]}')
    with pytest.raises(ConfigError, match=rf"{INDEX} cannot be read"):
        load(folder)
    for part in folder.glob("*.safetensors"):
        part.unlink()
    with pytest.raises(ConfigError, match=rf"no model\.safetensors in the folder, though {INDEX} names parts"):
        load(folder)


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_of_a_folder_is_never_run(tmp_path, monkeypatch, file):
    folder = save_tiny_folder(tmp_path, "opt")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    (folder / "mine.py").write_text('open("code-was-run", "w")\n')
    if file == "config.json":
        change(folder, file, model_type="mine", architectures=["Mine"], auto_map={"AutoConfig": "mine.Mine"})
    else:
        (folder / "tokenizer.json").unlink()
        change(folder, file, tokenizer_class="Mine", auto_map={"AutoTokenizer": ["mine.Mine", None]})
    with pytest.raises(ConfigError) as raised:
        load(folder)
    assert "which hpcfed never runs" in str(raised.value) and "\n" not in str(raised.value)
    assert not (tmp_path / "code-was-run").exists()


def test_a_known_architecture_with_code_beside_it_needs_none_of_it(tmp_path):
    folder = save_tiny_folder(tmp_path, "opt")
    change(folder, "config.json", auto_map={"AutoConfig": "mine.Mine", "AutoModelForCausalLM": "mine.Mine"})
    load(folder)


def test_layers_that_config_json_lacks_are_another_models(tmp_path):
    folder = save_tiny_folder(tmp_path, "opt")
    change(folder, "config.json", num_hidden_layers=2)  # the weights have three
    with pytest.raises(ConfigError, match=r"layers that the model of config\.json lacks \(first .*layers\.2\."):
        load(folder)


@pytest.mark.parametrize(
    ("family", "own", "longest"),
    [
        ("llama", {"max_position_embeddings": 77}, 77),
        ("gpt2", {"max_position_embeddings": 33, "n_positions": None}, 33),
        ("mpt", {"max_seq_len": 40}, 40),
        ("roberta", {"max_position_embeddings": 66, "pad_token_id": 1}, 64),
        ("xlnet", {"max_position_embeddings": None}, None),  # its configuration says -1
        ("bloom", {}, None),
        ("mamba", {}, None),
    ],
)
def test_how_long_a_text_may_be(family, own, longest):
    assert positions(zoo_config(family, **own)) == longest


@pytest.mark.parametrize(("said", "limit"), [(None, 128), (0, 128), (-1, 128), (10**30, 128), (50, 50)])
def test_a_tokenizers_own_limit_counts_where_it_is_one(tmp_path, said, limit):
    folder = save_tiny_folder(tmp_path, "opt")
    change(folder, "tokenizer_config.json", model_max_length=said)
    assert load_processor(ModelConfig(name=str(folder)), "causal-lm").model_max_length == limit < UNLIMITED
