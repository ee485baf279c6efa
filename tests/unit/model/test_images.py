"""What an image classifier is shown: to the pixel what transformers' own image processor makes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from transformers import AutoImageProcessor

from hpcfed.config import ModelConfig
from hpcfed.errors import ConfigError
from hpcfed.model import load_processor
from hpcfed.model.images import two_steps
from hpcfed.tasks.images import encode_images, image_form

VIT = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}
CLIP = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 36}, "crop_size": 32}
CONVNEXT = {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 32}}


def pictures():
    noise = np.random.Generator(np.random.Philox(1)).integers(0, 256, (64, 64, 3), np.uint8)
    shapes = [(50, 37), (40, 61), (33, 33), (20, 24), (64, 34)]
    return [Image.fromarray(noise[:h, :w]) for h, w in shapes] + [Image.fromarray(noise[:9, :9, 0])]


def model_with(folder, processor, **more):
    config = {"model_type": "vit", "architectures": ["ViTForImageClassification"], "image_size": 32, **more}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return ModelConfig(name=str(folder))


@pytest.mark.parametrize(
    "processor",
    [
        VIT,
        VIT | {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]},
        VIT | {"resample": 0},
        VIT | {"resample": "bicubic"},
        VIT | {"rescale_factor": 1 / 127.5},
        VIT | {"do_rescale": False},
        VIT | {"do_normalize": False},
        VIT | {"size": 32},
        CLIP,
        CLIP | {"do_center_crop": False, "size": {"height": 32, "width": 32}},
        CLIP | {"size": {"shortest_edge": 20}, "crop_size": {"height": 32, "width": 24}},
        CONVNEXT,
        CONVNEXT | {"crop_pct": 0.875},
        CONVNEXT | {"size": {"shortest_edge": 384}},
        {"image_processor_type": "DeiTImageProcessor", "size": {"height": 40, "width": 40}, "crop_size": 32},
        {"image_processor_type": "LevitImageProcessor", "size": {"shortest_edge": 32}, "crop_size": 32},
        {"image_processor_type": "PerceiverImageProcessor", "size": {"height": 32, "width": 32}, "crop_size": 36},
        {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 36}, "crop_size": 32},
        {"image_processor_type": "EfficientNetImageProcessor", "size": {"height": 32, "width": 32}},
        {
            "image_processor_type": "EfficientNetImageProcessor",
            "size": {"height": 32, "width": 32},
            "rescale_offset": True,
            "rescale_factor": 1 / 127.5,
        },
        {"image_processor_type": "MobileViTImageProcessor", "size": {"shortest_edge": 36}, "crop_size": 32},
        {"image_processor_type": "MobileNetV1ImageProcessor", "size": {"shortest_edge": 36}, "crop_size": 32},
        {},
    ],
)
def test_pictures_are_those_of_the_library(tmp_path, processor):
    config = model_with(tmp_path, processor)
    own = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    found = load_processor(config, "image-classification")
    kept = encode_images(pictures(), found, str)
    batch = image_form(found).collate([{"image": image, "label": 0} for image in kept])
    expected = own([picture.convert("RGB") for picture in pictures()], return_tensors="np")["pixel_values"]
    assert batch.inputs["pixel_values"].shape == expected.shape == (6, 3, found.height, found.width)
    np.testing.assert_allclose(batch.inputs["pixel_values"].numpy(), expected, rtol=1e-5, atol=1e-5 * expected.std())


@pytest.mark.parametrize(
    "processor",
    [
        VIT | {"size": {"longest_edge": 32}},
        VIT | {"image_mean": "grey"},
        VIT | {"size": {"height": 0, "width": 32}},
        VIT | {"do_resize": False},
        {"image_processor_type": "NobodysImageProcessor"},
    ],
)
def test_what_makes_no_pictures_of_one_size_is_named(tmp_path, processor):
    with pytest.raises(ConfigError, match=r"model\.name=.*preprocessor_config\.json"):
        load_processor(model_with(tmp_path, processor), "image-classification")


def test_a_processor_that_does_more_is_refused():
    def gamma(images, do_rescale=True, do_normalize=True, return_tensors="np"):
        pixels = np.stack([np.asarray(image.resize((8, 8)), np.float32).transpose(2, 0, 1) for image in images])
        return {"pixel_values": (pixels / 255) ** 2 if do_rescale else pixels}

    with pytest.raises(ConfigError, match=r"does more with a picture than scale, crop and normalise"):
        two_steps(gamma, 3, "model.name='m'", "file")
