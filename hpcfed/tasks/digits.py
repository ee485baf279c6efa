"""The embedded default job: real handwritten digits, seen by a scanner that feeds its pages sideways.

scikit-learn ships 1,797 scans of handwritten digits, 8x8 pixels of 0 to 16. A fixed permutation deals them into four
disjoint parts, so an image has one use and one only:

    pretrain     600   upright; the base model in recipes/digits was trained on these (tools/make_digits_model.py)
    validation   200   held by nobody; upright it measures the base model, turned it chose the recipe's settings
    clients      700   turned by 90 degrees; what the clients hold between them
    test         297   turned by 90 degrees; held by no client, used by no training; what the run reports

The base model reads upright digits and fails on turned ones; federated training has to repair that.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..seeds import derive, sample

Arrays = tuple[NDArray[np.float32], NDArray[np.int64]]

LABELS = tuple("0123456789")
SIDE = 8
PARTS = {"pretrain": 600, "validation": 200, "clients": 700, "test": 297}


def split_indices() -> dict[str, NDArray[np.int64]]:
    """The images of every part of PARTS, as int64 indices into scikit-learn's order; the same on every machine."""
    total = sum(PARTS.values())
    order = np.array(sample(derive(0, "digits", "split"), total, total), dtype=np.int64)
    return dict(zip(PARTS, np.split(order, np.cumsum(list(PARTS.values()))[:-1]), strict=True))


def turned(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """The images [n, 1, 8, 8] turned counter-clockwise by 90 degrees; a fresh contiguous array."""
    return np.ascontiguousarray(np.rot90(images, axes=(2, 3)))


def upright_arrays() -> dict[str, Arrays]:
    """Every part of PARTS as scanned: images float32 [n, 1, 8, 8] with ink scaled to [-1, 1], labels int64 [n]."""
    from sklearn.datasets import load_digits  # takes a second, and only this job needs it

    data = load_digits()
    images = (data.images / 8.0 - 1.0).astype(np.float32)[:, None]  # multiples of 1/8: exact, also in 16 bit
    labels = data.target.astype(np.int64)
    assert images.shape == (sum(PARTS.values()), 1, SIDE, SIDE)
    return {part: (images[index], labels[index]) for part, index in split_indices().items()}


def digits_arrays() -> dict[str, Arrays]:
    """The job itself: `train`, the images the clients hold, and `test`, both turned.

    Images are float32 [n, 1, 8, 8] in [-1, 1], labels int64 [n] in 0..9; n is 700 and 297.
    """
    upright = upright_arrays()
    return {
        "train": (turned(upright["clients"][0]), upright["clients"][1]),
        "test": (turned(upright["test"][0]), upright["test"][1]),
    }
