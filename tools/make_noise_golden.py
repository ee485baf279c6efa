"""Makes the known answers of noise spec v1 under tests/golden/ from the specification, hpcfed/noise/spec.py.

They are frozen: an orbit written today must replay tomorrow. Run it again only for a new version of the spec.
(philox4x32_10.txt is not made here; it holds Random123's own three vectors.)

    python tools/make_noise_golden.py          writes the files
    python tools/make_noise_golden.py --check  compares with the files instead
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from hpcfed.noise import spec
from hpcfed.noise.layout import Piece
from hpcfed.seeds import name_key

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"
KEY = name_key("model.layers.0.weight")
SEEDS = (0, 0x0123456789ABCDEF, 2**64 - 1)
FIRSTS = (0, 121, 2041, 2**32 - 3, 2**40 + 5, 2**62 - 4)  # across group, tile and 32-bit borders
_FINITE = (0.0, -0.0, 1.0, -1.0, 0.1, -2.5e-3, 3e-5, -5.9604645e-8, 1e-40, 65504.0, 65519.9, -65536.0, 3.4e38, -3.4e38)
VALUES = np.array([*_FINITE, np.inf, -np.inf, np.nan], np.float32)


def hexes(a: np.ndarray) -> str:
    """Comma-separated hexadecimal bits."""
    bits = a.view(f"u{a.itemsize}")
    return ",".join(f"{int(x):0{2 * a.itemsize}x}" for x in bits)


def directions() -> Iterator[str]:
    """z, as float32 bits."""
    for distribution in spec.DISTRIBUTIONS:
        for seed in SEEDS:
            for first in FIRSTS:
                elements = np.uint64(first) + np.arange(8, dtype=np.uint64)
                z = spec.z(seed, KEY, elements, distribution)
                yield f"{distribution} seed={seed:016x} key={KEY:016x} first={first:x} z={hexes(z)}"


def rounding() -> Iterator[str]:
    """The random bits of stochastic rounding, then what they make of float32 values."""
    for seed in SEEDS:
        for first in FIRSTS:
            elements = np.uint64(first) + np.arange(8, dtype=np.uint64)
            r = spec.bits16(spec.mix64(seed ^ spec.ROUNDING_STREAM), KEY, elements)
            yield f"bits seed={seed:016x} key={KEY:016x} first={first:x} random={hexes(r)}"
    for kind in ("bfloat16", "float16"):
        for random in (0, 1, 0x0FFF, 0x1000, 0x1FFF, 0x8000, 0xFFFF):
            out = spec.narrow_stochastic(VALUES, kind, np.full(len(VALUES), random, np.uint16))
            yield f"{kind} random={random:04x} x={hexes(VALUES)} out={hexes(out)}"


def perturbed() -> Iterator[str]:
    """w + mu z and w - mu z."""
    for kind in spec.KINDS:
        w = spec.narrow(VALUES, kind)
        for distribution in spec.DISTRIBUTIONS:
            for mu, first in ((1e-3, 0), (0.25, 2**32 - 3)):
                piece = Piece(KEY, np.array([first]), len(w))
                plus, minus = spec.perturb(w, SEEDS[1], mu, piece, distribution, kind)
                head = f"{kind} {distribution} seed={SEEDS[1]:016x} key={KEY:016x} first={first:x}"
                scale = hexes(np.array([mu], np.float32))
                yield f"{head} mu={scale} w={hexes(w)} plus={hexes(plus)} minus={hexes(minus)}"


def moved() -> Iterator[str]:
    """w after three steps of different seeds and coefficients."""
    seeds, c = np.array(SEEDS, np.uint64), np.array([1e-3, -2.0, 3e-6], np.float32)
    for kind in spec.KINDS:
        w = spec.narrow(VALUES, kind)
        for distribution in spec.DISTRIBUTIONS:
            for way in spec.ROUNDINGS:
                for first in (0, 2**40 + 2045):
                    out = spec.move(w, seeds, c, Piece(KEY, np.array([first]), len(w)), distribution, way, kind)
                    head = (
                        f"{kind} {distribution} {way} seeds={hexes(seeds)} c={hexes(c)} key={KEY:016x} first={first:x}"
                    )
                    yield f"{head} w={hexes(w)} out={hexes(out)}"


def moved_once() -> Iterator[str]:
    """w after four steps with one rounding; the step of the last seed, whose rounding bits are used, is zero."""
    seeds, c = np.array([*SEEDS, 7], np.uint64), np.array([1e-3, -2.0, 3e-6, 0.0], np.float32)
    for kind in spec.KINDS:
        w = spec.narrow(VALUES, kind)
        for distribution in spec.DISTRIBUTIONS:
            for way in spec.ROUNDINGS:
                for first in (0, 2**40 + 2045):
                    out = spec.move_once(w, seeds, c, Piece(KEY, np.array([first]), len(w)), distribution, way, kind)
                    steps = f"seeds={hexes(seeds)} c={hexes(c)} key={KEY:016x} first={first:x}"
                    yield f"{kind} {distribution} {way} {steps} w={hexes(w)} out={hexes(out)}"


def fingerprints() -> Iterator[str]:
    """Both 64-bit sums, lane 1 first."""
    for dtype in ("uint8", "float16", "bfloat16", "float32", "float64", "int64"):
        size = {"uint8": 1, "float16": 2, "bfloat16": 2, "float32": 4}.get(dtype, 8)
        raw = np.array([spec.mix64(i + 1) for i in range(5)], np.uint64).astype(f"u{size}")
        for first in (0, 2**40 + 5):
            value = spec.fingerprint(raw, dtype, Piece(KEY, np.array([first]), len(raw)))
            yield f"{dtype} key={KEY:016x} first={first:x} raw={hexes(raw)} fingerprint={value:032x}"


FILES = {
    "noise_directions.txt": (
        directions,
        "distribution, seed, name key, first element -> z of 8 elements, float32 bits",
    ),
    "noise_rounding.txt": (rounding, "the rounding bits of a seed; then kind, bits, float32 values -> rounded values"),
    "noise_perturb.txt": (perturbed, "kind, distribution, seed, key, first, mu, w -> w + mu z, w - mu z"),
    "noise_move.txt": (moved, "kind, distribution, rounding, seeds, coefficients, key, first, w -> w after all steps"),
    "noise_move_once.txt": (
        moved_once,
        "kind, distribution, rounding, seeds, coefficients, key, first, w -> w after all steps and one rounding",
    ),
    "noise_fingerprint.txt": (fingerprints, "dtype, name key, first element, values' bits -> fingerprint"),
}


def main() -> None:
    """Write or check the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the files, write nothing")
    check = parser.parse_args().check
    for name, (lines, what) in FILES.items():
        header = f"# Noise spec v1 (hpcfed/noise/spec.py): {what}.\n# All numbers are hexadecimal.\n"
        text = header + "".join(f"{line}\n" for line in lines())
        if not check:
            (GOLDEN / name).write_text(text)
        elif (GOLDEN / name).read_text() != text:
            sys.exit(f"{GOLDEN / name} differs from the specification")


if __name__ == "__main__":
    main()
