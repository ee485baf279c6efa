"""Between torch tensors, NumPy arrays of bits, and the text files of known answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from hpcfed.noise import spec

GOLDEN = Path(__file__).parents[1] / "golden"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def read_golden(name: str, first: str | None = None) -> list[tuple[list[str], dict[str, str]]]:
    """Lines of a golden file (those that start with `first`): their words, and their name=value pairs."""
    lines = []
    for line in (GOLDEN / name).read_text().splitlines():
        words = line.split()
        if line.startswith("#") or (first is not None and words[0] != first):
            continue
        lines.append(([w for w in words if "=" not in w], dict(w.split("=") for w in words if "=" in w)))
    assert lines
    return lines


def bits_from(text: str) -> np.ndarray:
    """Unsigned bits of a comma-separated list of hexadecimal numbers of one width."""
    parts = text.split(",")
    return np.array([int(part, 16) for part in parts], np.uint64).astype(f"u{len(parts[0]) // 2}")


def bits_of(a: np.ndarray) -> np.ndarray:
    """The bits of an array, unsigned."""
    return a.view(f"u{a.itemsize}")


def array_of(bits: np.ndarray, kind: str) -> np.ndarray:
    """Bits as the array that noise/spec.py calls `kind`."""
    return bits.view({"float32": np.float32, "bfloat16": np.uint16, "float16": np.float16}[kind])


def tensor_of(a: np.ndarray, kind: str) -> torch.Tensor:
    """A copy of a spec array as a tensor."""
    return torch.from_numpy(bits_of(a).copy().view(f"i{a.itemsize}")).view(DTYPES[kind])


def tensor_bits(t: torch.Tensor) -> np.ndarray:
    """The bits of a float tensor, unsigned."""
    signed = {2: torch.int16, 4: torch.int32}[t.element_size()]
    return bits_of(t.view(signed).numpy())


def random_weights(n: int, kind: str, seed: int) -> np.ndarray:
    """Weights of every size, a tenth of them any bits at all: infinite, not a number, denormal."""
    rng = np.random.default_rng(seed)
    usual = (rng.standard_normal(n) * 10.0 ** rng.integers(-9, 5, n)).astype(np.float32)
    with np.errstate(all="ignore"):
        w = spec.narrow(usual, kind)
    wild = rng.random(n) < 0.1
    bits_of(w)[wild] = rng.integers(0, 2**32, n, np.uint64).astype(f"u{w.itemsize}")[wild]
    return w
