"""A weights file comes back bit for bit or not at all; every damaged byte is noticed."""

from __future__ import annotations

import errno
import os

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from hpcfed.errors import OrbitError, RunFolderError
from hpcfed.weights import Weights, checkpoint
from hpcfed.weights.checkpoint import load_weights, save_weights

HEADER = {"algorithm": "fedavg", "lr": 0.1, "note": "Straße"}


class Net(nn.Module):
    def __init__(self, seed: int, wide: int = 2) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.narrow = nn.Parameter(torch.randn(3, dtype=torch.bfloat16))
            self.full = nn.Parameter(torch.randn(2, wide))
            self.frozen = nn.Parameter(torch.full((2,), 5.0))
            self.scalar = nn.Parameter(torch.randn((), dtype=torch.float16))
        self.requires_grad_(False)


TRAINED = ["narrow", "full", "scalar"]


def weights_of(seed: int, **changes) -> Weights:
    return Weights(Net(seed, **changes), TRAINED)


@pytest.fixture
def saved(tmp_path):
    weights = weights_of(1)
    size = save_weights(tmp_path / "weights.safetensors", weights, 12, weights.fingerprint(), HEADER)
    assert size == (tmp_path / "weights.safetensors").stat().st_size
    return tmp_path / "weights.safetensors", weights


def test_round_trip(saved):
    path, weights = saved
    other = weights_of(2)
    assert load_weights(path, other) == (12, HEADER)
    assert other.fingerprint() == weights.fingerprint()
    for name, p in weights.params.items():
        assert torch.equal(other.params[name], p)
    assert list(path.parent.iterdir()) == [path]


def test_other_tools_read_it(saved):
    path, weights = saved
    found = load_file(path)
    assert found.keys() == set(TRAINED)
    for name, p in weights.params.items():
        assert found[name].dtype == p.dtype and torch.equal(found[name], p)


def test_the_same_weights_are_the_same_bytes_and_replace_the_old(saved):
    path, weights = saved
    first = path.read_bytes()
    save_weights(path, weights, 13, weights.fingerprint(), HEADER)
    assert path.read_bytes() != first and load_weights(path, weights_of(2))[0] == 13
    save_weights(path, weights, 12, weights.fingerprint(), dict(reversed(HEADER.items())))
    assert path.read_bytes() == first


def test_every_flipped_byte_is_noticed(saved):
    path, _ = saved
    raw = path.read_bytes()
    other = weights_of(2)
    for i in range(len(raw)):
        path.write_bytes(raw[:i] + bytes([raw[i] ^ 1 << i % 8]) + raw[i + 1 :])
        with pytest.raises(OrbitError, match=str(path)):
            load_weights(path, other)


def test_every_truncation_and_a_longer_file_are_noticed(saved):
    path, _ = saved
    raw, other = path.read_bytes(), weights_of(2)
    before = other.fingerprint()
    for n in range(len(raw)):
        path.write_bytes(raw[:n])
        with pytest.raises(OrbitError, match=r"truncated|not a safetensors file"):
            load_weights(path, other)
    path.write_bytes(raw + b"\0")
    with pytest.raises(OrbitError, match="too long"):
        load_weights(path, other)
    assert other.fingerprint() == before  # seen before anything was read


def test_other_models_are_named(saved):
    path, weights = saved
    with pytest.raises(OrbitError, match=r"another model: full is F32 \[2, 2\], not F32 \[2, 3\]"):
        load_weights(path, weights_of(1, wide=3))
    with pytest.raises(OrbitError, match=r"another model: full is F32 \[2, 2\], not F16 \[2, 2\]"):
        load_weights(path, Weights(Net(1).half(), TRAINED))
    with pytest.raises(OrbitError, match=r"another model: full is F32.*BF16"):
        load_weights(path, Weights(Net(1).bfloat16(), ["full"]))
    with pytest.raises(OrbitError, match=r"it has no frozen \(algorithm.train_only"):
        load_weights(path, Weights(Net(1)))
    with pytest.raises(OrbitError, match="narrow is no trained parameter of this model"):
        load_weights(path, Weights(Net(1), ["full", "scalar"]))
    other = Net(2)
    other.frozen.add_(1)
    with pytest.raises(OrbitError, match=f"not {weights.fingerprint()}.*another base model"):
        load_weights(path, Weights(other, TRAINED))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"t": "-1"}, "do not match their checksum"),
        ({"t": 12}, "do not match their checksum"),
        ({"fingerprint": "0" * 31}, "do not match their checksum"),
        ({"header": "[" * 100_000}, "no table of trained weights"),
        ({"header": "1"}, "do not match their checksum"),
        ({"more": "1"}, "does not say 'hpcfed-weights'"),
    ],
)
def test_a_forged_table_with_a_right_checksum_is_refused(saved, changed, message):
    path, weights = saved
    facts = {"format": "hpcfed-weights", "t": "12", "fingerprint": weights.fingerprint(), "header": "{}"} | changed
    path.write_bytes(checkpoint._table(facts, checkpoint._tensors(weights)) + bytes(26))
    with pytest.raises(OrbitError, match=message):
        load_weights(path, weights)


@pytest.mark.parametrize("entry", [1, None, [], {}, {"dtype": 1}, {"dtype": "F32", "shape": [2, 2]}])
def test_a_forged_tensor_is_refused(saved, entry):
    path, weights = saved
    facts = {"format": "hpcfed-weights", "t": "12", "fingerprint": weights.fingerprint(), "header": "{}"}
    tensors = checkpoint._tensors(weights) | {"full": entry}
    path.write_bytes(checkpoint._table(facts, tensors) + bytes(24))
    with pytest.raises(OrbitError, match=r"no table|another model"):
        load_weights(path, weights)


@pytest.mark.parametrize(
    "raw", [b"", b"\0" * 8, b"{}", b"\2" + b"\0" * 7 + b"[]", b"\2" + b"\0" * 7 + b"{}", b"\xff" * 40]
)
def test_strange_files_are_refused(tmp_path, raw):
    (tmp_path / "w").write_bytes(raw)
    with pytest.raises(OrbitError):
        load_weights(tmp_path / "w", weights_of(1))


def test_other_safetensors_files_are_refused(saved):
    from safetensors.torch import save_file

    path, weights = saved
    tensors = {name: p.data for name, p in weights.params.items()}
    for metadata in (None, {}, {"format": "pt"}, {"checksum": "0", "format": "hpcfed-weights"}):
        save_file(tensors, path, metadata)
        with pytest.raises(OrbitError, match=r"damaged, or not written by hpcfed|not weights of a run"):
            load_weights(path, weights_of(1))


def test_what_is_no_file_is_an_error_too(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("absent", ".", "pipe", "zero\0byte"):
        with pytest.raises(OrbitError):
            load_weights(tmp_path / name, weights_of(1))


def test_a_failed_write_leaves_the_old_file_and_no_other(saved, monkeypatch):
    path, weights = saved
    first = path.read_bytes()

    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunFolderError, match="cannot write the weights: No space left"):
        save_weights(path, weights, 13, weights.fingerprint(), HEADER)
    assert path.read_bytes() == first and list(path.parent.iterdir()) == [path]
    with pytest.raises(RunFolderError, match="absent"):
        save_weights(path.parent / "absent" / "w", weights, 13, weights.fingerprint(), HEADER)
