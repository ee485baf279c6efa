"""A model without weights: what its configuration alone says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from ..config import ModelConfig
from .load import image_processor, load_config, positions, takes_positions
from .slices import empty_model


@dataclass(frozen=True)
class Outline:
    """model: as load_model gives it, all on the meta device.  config: transformers' configuration.

    positions: longest sequence, if known.  position_ids: they are among the inputs.  image: (channels, height, width)
    of an image classifier.
    """

    model: nn.Module
    config: Any
    positions: int | None
    position_ids: bool
    image: tuple[int, int, int] | None


def outline(config: ModelConfig, kind: str, labels: list[str]) -> Outline:
    """The model of `kind`, from config.json alone.  Raises ConfigError as load_model does."""
    hf_config, image = load_config(config), None
    if kind == "image-classification":
        sizes = image_processor(config, hf_config)
        image = (sizes.channels, sizes.height, sizes.width)
    takes = takes_positions(config, hf_config, kind)
    model = empty_model(config, kind, labels).to("meta")  # its buffers have memory
    return Outline(model, hf_config, positions(hf_config), takes, image)
