"""The embedded job: parts that share no image, a shift that is a pure rotation, a base model that needs repair."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import ViTForImageClassification

import hpcfed
from hpcfed.tasks import digits

HEADS = {
    "pretrain": [35, 922, 1106, 49],
    "validation": [1399, 1688, 1312, 880],
    "clients": [1423, 231, 1097, 661],
    "test": [1069, 616, 889, 460],
}
FOLDER = Path(hpcfed.__file__).parent / "recipes" / "digits"


@pytest.fixture(scope="module")
def model() -> ViTForImageClassification:
    return ViTForImageClassification.from_pretrained(FOLDER).eval()


def accuracy(model: ViTForImageClassification, images: np.ndarray, labels: np.ndarray) -> float:
    with torch.inference_mode():
        return float(np.mean(model(torch.from_numpy(images)).logits.argmax(1).numpy() == labels))


def test_every_image_is_in_exactly_one_part() -> None:
    parts = digits.split_indices()
    assert {name: len(index) for name, index in parts.items()} == digits.PARTS
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(1797))


def test_the_split_never_changes() -> None:
    """The shipped model was trained on one split; another one would put its training images into the test set."""
    heads = {name: index[:4].tolist() for name, index in digits.split_indices().items()}
    assert heads == HEADS


def test_shapes_dtypes_range_and_labels() -> None:
    job = digits.digits_arrays()
    assert set(job) == {"train", "test"}
    for part, size in (("train", 700), ("test", 297)):
        images, labels = job[part]
        assert images.shape == (size, 1, 8, 8) and images.dtype == np.float32 and images.flags.c_contiguous
        assert labels.shape == (size,) and labels.dtype == np.int64
        assert images.min() == -1 and images.max() == 1
        assert set(labels.tolist()) == set(range(len(digits.LABELS)))


def test_the_shift_turns_each_image_and_nothing_else() -> None:
    upright, job = digits.upright_arrays(), digits.digits_arrays()
    for part, name in (("clients", "train"), ("test", "test")):
        images, labels = upright[part]
        assert np.array_equal(job[name][1], labels)
        for row, column in ((0, 0), (0, 7), (3, 5)):  # counter-clockwise: the right edge becomes the top one
            assert np.array_equal(job[name][0][:, 0, row, column], images[:, 0, column, 7 - row])


def test_pixels_are_exact_in_16_bit() -> None:
    images = torch.from_numpy(digits.digits_arrays()["train"][0])
    for dtype in (torch.bfloat16, torch.float16):
        assert torch.equal(images.to(dtype).float(), images)


def test_the_base_model_reads_upright_digits_and_fails_on_turned_ones(model: ViTForImageClassification) -> None:
    job, upright = digits.digits_arrays(), digits.upright_arrays()
    assert accuracy(model, *upright["test"]) > 0.93
    assert 0.05 < accuracy(model, *job["test"]) < 0.35
    assert 0.05 < accuracy(model, *job["train"]) < 0.35


def test_the_base_model_is_small_and_deterministic(model: ViTForImageClassification) -> None:
    assert (FOLDER / "model.safetensors").stat().st_size < 500_000
    assert 10_000 < model.num_parameters() < 100_000
    assert model.config.hidden_dropout_prob == 0 and model.config.attention_probs_dropout_prob == 0
    assert [model.config.id2label[i] for i in range(10)] == list(digits.LABELS)
