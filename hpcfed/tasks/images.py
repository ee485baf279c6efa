"""Image tasks: pictures to arrays, arrays to normalised batches.

Formula  pixel_values = (pixel / 255 - mean) / std, per channel
Legend   H, W, c: height, width, channels the model wants; processor: what the model folder says about its images,
         {"height", "width", "channels", "mean", "std", "resample", "shortest"} (model/load.py: load_processor)
         shortest: side to which the shorter edge is scaled before a crop of the centre; None: both edges are scaled
Promise  images are kept as uint8 and never larger than the model wants them; scaling is Pillow's, so it is the same on
         every machine with the same Pillow
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..errors import DataError
from .base import Batch, Example, Form

_MODES = {1: "L", 3: "RGB"}


def image_form(processor: Mapping[str, Any]) -> Form:
    """How an image classifier sees uint8 images [h, w, c] of any size."""
    return Form(partial(_collate_images, processor), _scores, lambda e: 1)


def array_form() -> Form:
    """How an image classifier sees images that are float32 [c, H, W] and normalised already."""
    return Form(_collate_arrays, _scores, lambda e: 1)


def encode_images(
    images: Sequence[Any], processor: Mapping[str, Any], where: Callable[[int], str]
) -> NDArray[np.uint8]:
    """uint8 [n, h, w, c] of Pillow images: as they are if all have one size below the model's, else scaled to it."""
    mode = _MODES[processor["channels"]]
    sizes, arrays = set(), []
    try:
        for image in images:
            sizes.add(image.size)
            small = image.width < processor["width"] and image.height < processor["height"]
            arrays.append(
                np.asarray(image.convert(mode) if small and len(sizes) == 1 else fitted(image.convert(mode), processor))
            )
    except OSError as e:  # Pillow opens lazily: a broken file shows when its pixels are read
        raise DataError(f"{where(len(arrays))}: {e}") from None
    if len({a.shape for a in arrays}) > 1:  # small ones of several sizes: scale them all
        arrays = [np.asarray(fitted(Image.fromarray(a), processor)) for a in arrays]
    stack = np.stack(arrays)
    return stack[..., None] if stack.ndim == 3 else stack


def fitted(image: Image.Image, processor: Mapping[str, Any]) -> Image.Image:
    """`image` scaled, and cropped where the model was trained that way, to the model's size."""
    width, height = processor["width"], processor["height"]
    if processor.get("shortest"):
        scale = processor["shortest"] / min(image.size)
        sides = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
    else:
        sides = (width, height)
    if image.size != sides:
        image = image.resize(sides, resample=processor["resample"])
    left, top = (sides[0] - width) // 2, (sides[1] - height) // 2
    return image.crop((left, top, left + width, top + height)) if sides != (width, height) else image


def _collate_images(processor: Mapping[str, Any], examples: Sequence[Example]) -> Batch:
    """inputs: pixel_values float32 [n, c, H, W]."""
    pixels = np.stack([_scaled(e["image"], processor) for e in examples]).astype(np.float32)
    mean, std = (np.array(processor[key], np.float32) for key in ("mean", "std"))
    values = np.ascontiguousarray(((pixels / np.float32(255) - mean) / std).transpose(0, 3, 1, 2))
    return Batch({"pixel_values": torch.from_numpy(values)}, _labels(examples))


def _scaled(pixels: NDArray[np.uint8], processor: Mapping[str, Any]) -> NDArray[np.uint8]:
    if pixels.shape[:2] == (processor["height"], processor["width"]):
        return pixels
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    scaled = np.asarray(fitted(image, processor))
    return scaled[..., None] if scaled.ndim == 2 else scaled


def _collate_arrays(examples: Sequence[Example]) -> Batch:
    values = torch.from_numpy(np.stack([e["pixel_values"] for e in examples]))
    return Batch({"pixel_values": values}, _labels(examples))


def _labels(examples: Sequence[Example]) -> Tensor:
    return torch.tensor([example["label"] for example in examples], dtype=torch.int64)


def _scores(logits: Tensor, batch: Batch) -> Tensor:
    return logits.float()
