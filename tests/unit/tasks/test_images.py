"""Images: folders and archives, sizes, normalisation, and the digits that come with the package."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from hpcfed.config import ModelConfig
from hpcfed.errors import ConfigError, DataError
from hpcfed.model import load_processor
from hpcfed.tasks.images import encode_images, image_form
from hpcfed.tasks.table import TASKS
from tests.support.small import save_tiny_folder
from tests.support.tasks import open_task

CLASSES = ("cat", "dog", "ship")


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    return save_tiny_folder(tmp_path_factory.mktemp("model"), "vit", labels=10, size=8)


def make_images(folder, size=(8, 8), count=2):
    """SPLIT/CLASS/n.png; every image has one grey value, 10 * class + n."""
    for split in ("train", "test"):
        for c, name in enumerate(CLASSES):
            (folder / split / name).mkdir(parents=True)
            for n in range(count):
                Image.new("L", size, 10 * c + n).save(folder / split / name / f"{n}.png")
    return folder


def greys(task):
    examples = [task.train[i] for i in range(len(task.train))]
    return sorted((int(e["image"].flat[0]), task.labels[e["label"]]) for e in examples)


def test_folders_and_archives_of_images(tmp_path, vit):
    folder = make_images(tmp_path / "images")
    (folder / "labels.json").write_text(json.dumps(CLASSES))
    found = open_task(vit, name="cifar10", data=str(folder))
    assert greys(found) == [(10 * c + n, name) for c, name in enumerate(CLASSES) for n in range(2)]
    assert found.labels == list(TASKS["cifar10"].labels) and found.train[0]["image"].dtype == np.uint8

    packed = tmp_path / "packed"
    packed.mkdir()
    for split in ("train", "test"):
        with zipfile.ZipFile(packed / f"{split}.zip", "w") as archive:
            for file in sorted((folder / split).rglob("*.png")):
                archive.write(file, file.relative_to(folder))
    assert greys(open_task(vit, name="cifar10", data=str(packed))) == greys(found)

    custom = open_task(vit, name="custom", data=str(folder), eval_splits=["test"])
    assert custom.labels == list(CLASSES) and greys(custom) == greys(found)


def test_pixel_values_are_normalised(tmp_path, vit):
    task = open_task(vit, name="cifar10", data=str(make_images(tmp_path)))
    batch = task.collate([task.train[0], task.train[5]])
    expected = (torch.tensor([float(task.train[i]["image"].flat[0]) for i in (0, 5)]) / 255 - 0.5) / 0.5
    assert batch.inputs["pixel_values"].shape == (2, 1, 8, 8) and batch.inputs["pixel_values"].dtype == torch.float32
    torch.testing.assert_close(batch.inputs["pixel_values"][:, 0, 3, 3], expected)


def processor(tmp_path, channels=3):
    raw = {
        "model_type": "vit",
        "architectures": ["ViTForImageClassification"],
        "image_size": 8,
        "num_channels": channels,
    }
    (tmp_path / "config.json").write_text(json.dumps(raw))
    return load_processor(ModelConfig(name=str(tmp_path)), "image-classification")


def where(i):
    return f"row {i + 1}"


def test_sizes(tmp_path):
    noise = np.random.Generator(np.random.Philox(0)).integers(0, 256, (20, 30, 3), np.uint8)
    large, small = Image.fromarray(noise), Image.fromarray(noise[:4, :4])
    assert encode_images([small, small], processor(tmp_path), where).shape == (
        2,
        4,
        4,
        3,
    )  # kept small, scaled when collated
    assert encode_images([large, small, small], processor(tmp_path), where).shape == (3, 8, 8, 3)
    assert encode_images([small, large], processor(tmp_path, 1), where).shape == (2, 8, 8, 1)
    kept = encode_images([small], processor(tmp_path), where)
    form = image_form(processor(tmp_path))
    pixels = form.collate([{"image": kept[0], "label": 0}]).inputs["pixel_values"]
    direct = np.asarray(small.resize((8, 8), resample=2), np.float32)
    np.testing.assert_allclose(pixels[0].permute(1, 2, 0) * 127.5 + 127.5, direct, atol=1e-4)


def test_what_is_wrong_with_images_is_named(tmp_path, vit):
    folder = make_images(tmp_path)
    (folder / "train" / "dog" / "0.png").write_bytes((folder / "train" / "dog" / "0.png").read_bytes()[:40])
    with pytest.raises(DataError, match=r"train, row 3: "):
        open_task(vit, name="cifar10", data=str(folder))
    (folder / "train" / "dog" / "0.png").unlink()
    (folder / "train" / "ship").rename(folder / "train" / "shap")
    with pytest.raises(DataError, match=r"train, row 4: label 'shap' is no class; did you mean ship"):
        open_task(vit, name="cifar10", data=str(folder))
    with pytest.raises(ConfigError, match="the model is an image classifier"):
        open_task(vit, name="sst2", data=str(folder))


@pytest.mark.parametrize("mode", ["I", "F", "I;16"])
def test_pictures_of_more_than_8_bits_are_named(tmp_path, mode):
    deep = Image.fromarray(np.full((4, 4), 1000, {"I": np.int32, "F": np.float32, "I;16": np.uint16}[mode]))
    with pytest.raises(DataError, match=r"row 1: an image of mode .*, with more than 8 bits"):
        encode_images([deep], processor(tmp_path), where)
