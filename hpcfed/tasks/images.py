"""Image tasks: pictures to arrays, arrays to normalised batches.

Legend   H, W, c: height, width, channels that the model sees; processor: what the model folder says about its images
         (model/images.py)
Promise  images are kept as uint8 and never larger than the model wants them; scaling is the processor's own, by Pillow,
         so it is the same on every machine with the same Pillow
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, BinaryIO, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from ..errors import DataError
from .base import Batch, Example, Form

_MODES = {1: "L", 3: "RGB"}


class Processor(Protocol):
    """See model.images.ImageProcessor."""

    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...

    @property
    def channels(self) -> int: ...

    def fitted(self, pictures: Sequence[Image.Image]) -> NDArray[np.uint8]: ...

    def normalised(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]: ...


def image_form(processor: Processor) -> Form:
    """How an image classifier sees uint8 images [h, w, c] of any size."""
    return Form(partial(_collate_images, processor), _scores, lambda e: 1)


def array_form() -> Form:
    """How an image classifier sees images that are float32 [c, H, W] and normalised already."""
    return Form(_collate_arrays, _scores, lambda e: 1)


def encode_images(images: Sequence[Any], processor: Processor, where: Callable[[int], str]) -> NDArray[np.uint8]:
    """uint8 [n, h, w, c] of Pillow images: as they are if all have one size below the model's, else scaled to it."""
    sizes, arrays = set(), []
    try:
        for image in images:
            if image.mode.startswith(("I", "F")):
                raise OSError(f"an image of mode {image.mode}, with more than 8 bits a channel; convert it to 8 bits")
            sizes.add(image.size)
            picture = image.convert(_MODES[processor.channels])
            small = image.width < processor.width and image.height < processor.height
            arrays.append(_array(picture) if small and len(sizes) == 1 else processor.fitted([picture])[0])
    except OSError as e:  # Pillow opens lazily: a broken file shows when its pixels are read
        raise DataError(f"{where(len(arrays))}: {e}") from None
    if len({a.shape for a in arrays}) > 1:  # small ones of several sizes: scale them all
        arrays = [_scaled([a], processor)[0] for a in arrays]
    return np.stack(arrays)


def decoded(raw: BinaryIO, where: str) -> Image.Image:
    """Pillow's image of a file, turned as its EXIF data say. OSError with `where` for whatever Pillow cannot read."""
    try:
        image: Image.Image = Image.open(raw)
        image.load()
        if image.getexif().get(Image.ExifTags.Base.Orientation) is not None:
            image = ImageOps.exif_transpose(image)
        return image
    except Exception as e:  # its readers raise whatever a damaged file leads them to
        raise OSError(f"{where or 'the image'}: no image that Pillow can read ({type(e).__name__}: {e})") from None


def _collate_images(processor: Processor, examples: Sequence[Example]) -> Batch:
    """inputs: pixel_values float32 [n, c, H, W]."""
    pixels = processor.normalised(_scaled([e["image"] for e in examples], processor))
    return Batch({"pixel_values": torch.from_numpy(pixels)}, _labels(examples))


def _scaled(arrays: Sequence[NDArray[np.uint8]], processor: Processor) -> NDArray[np.uint8]:
    """[n, H, W, c] of images of one size."""
    if arrays[0].shape[:2] == (processor.height, processor.width):
        return np.stack(arrays)
    return processor.fitted([Image.fromarray(a[..., 0] if a.shape[2] == 1 else a) for a in arrays])


def _array(picture: Image.Image) -> NDArray[np.uint8]:
    array = np.asarray(picture)
    return array[..., None] if array.ndim == 2 else array


def _collate_arrays(examples: Sequence[Example]) -> Batch:
    values = torch.from_numpy(np.stack([e["pixel_values"] for e in examples]))
    return Batch({"pixel_values": values}, _labels(examples))


def _labels(examples: Sequence[Example]) -> Tensor:
    return torch.tensor([example["label"] for example in examples], dtype=torch.int64)


def _scores(logits: Tensor, batch: Batch) -> Tensor:
    return logits.float()
