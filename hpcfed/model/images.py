"""How an image classifier's pictures are made: transformers' own image processor, asked in two steps.

Formula  pixel_values = (pixel / 255 - mean) / std, per channel, of the pixels that the processor has scaled and cropped
Promise  both steps give what the processor gives in one, tried on two pictures; else the model is refused by name
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import ConfigError, first_line

_APART = 0.02  # grey levels: sums of float32 in another order are apart by less


@dataclass(frozen=True)
class ImageProcessor:
    """own: transformers'.  height, width, channels: what the model sees.  mean, std: [channels], of pixel / 255."""

    own: Any
    height: int
    width: int
    channels: int
    mean: NDArray[np.float32]
    std: NDArray[np.float32]

    def fitted(self, pictures: Sequence[Image.Image]) -> NDArray[np.uint8]:
        """uint8 [n, height, width, channels]: scaled and cropped as the processor does it."""
        return _pixels(self.own, pictures, self.channels)

    def normalised(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """float32 [n, channels, height, width]."""
        return _normalised(pixels, self.mean, self.std)


def two_steps(own: Any, channels: int, model: str, file: str) -> ImageProcessor:
    """transformers' processor, which `file` of the model describes, for a model of so many channels; ConfigError if it
    does more than scale, crop and normalise.
    """
    said = _said(own, channels, f"{model}: image_%s in {file}")
    noise = np.random.Generator(np.random.Philox(0)).integers(0, 256, (2, 61, 61, 3), np.uint8)
    pictures = [Image.fromarray(noise[0, :50, :37]), Image.fromarray(noise[1, :41])]
    try:
        pixels, whole = _pixels(own, pictures, channels), _asked(own, pictures, channels)
        black, white = _asked(own, [Image.new("RGB", (48, 48), color) for color in ("black", "white")], channels)
    except Exception as e:  # whatever a setting that does not fit makes the library raise
        raise ConfigError(f"{model}: no pictures of one size can be made as {file} says ({first_line(e)})") from None
    with np.errstate(all="ignore"):  # of a processor that does not normalise by a straight line
        span = (white - black)[:, 0, 0]
        for mean, std in (said, (-black[:, 0, 0] / span, 1 / span)):
            apart = np.abs(_normalised(pixels, mean, std) - whole) * np.abs(std[:, None, None]) * 255
            if apart.max() <= _APART:
                return ImageProcessor(own, pixels.shape[1], pixels.shape[2], channels, mean, std)
    raise ConfigError(
        f"{model}: the {type(own).__name__} of {file} does more with a picture than scale, crop and normalise it; use "
        "another model"
    )


def _said(own: Any, channels: int, where: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The processor's own mean and standard deviation; one value stands for all channels, for the processor, too."""
    found = []
    for key, plain in (("mean", 0.0), ("std", 1.0)):
        value = getattr(own, f"image_{key}", None) if getattr(own, "do_normalize", False) else plain
        values = list(value) if isinstance(value, list | tuple) else [plain if value is None else value] * channels
        if len(values) != channels:
            raise ConfigError(f"{where % key} is for {len(values)} channels, not {channels}")
        if channels == 1:
            setattr(own, f"image_{key}", values[0])
        try:
            found.append(np.array(values, np.float32))
        except (TypeError, ValueError):
            raise ConfigError(f"{where % key} is {value!r:.80}; there must be a number for each channel") from None
    return found[0], found[1]


def _asked(own: Any, pictures: Sequence[Image.Image], channels: int, **options: Any) -> NDArray[np.float32]:
    """[n, channels, H, W]; grey pictures have three equal channels on the way."""
    made = own(images=[picture.convert("RGB") for picture in pictures], return_tensors="np", **options)
    return np.asarray(made["pixel_values"], np.float32)[:, :channels]


def _pixels(own: Any, pictures: Sequence[Image.Image], channels: int) -> NDArray[np.uint8]:
    once = {"include_top": False} if hasattr(own, "include_top") else {}  # EfficientNet divides by std twice
    made = _asked(own, pictures, channels, do_rescale=False, do_normalize=False, **once)
    return np.ascontiguousarray(np.rint(made).clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1))


def _normalised(pixels: NDArray[np.uint8], mean: NDArray[np.float32], std: NDArray[np.float32]) -> NDArray[np.float32]:
    values = (pixels.astype(np.float32) / np.float32(255) - mean) / std
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2))
