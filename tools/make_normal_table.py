"""Makes hpcfed/noise/normal_v1.bin: the quantile table behind the `gaussian` directions of noise spec v1.

Formula  The standard normal is cut into 65,536 bins of equal probability; bin j >= 0 of the positive half lies between
         a_j and a_(j+1), where P(Z < a_j) = 1/2 + j/65536.  Its conditional mean is 65536 (phi(a_j) - phi(a_(j+1))).
         All values are then divided by the root of their mean square, so that the second moment is exactly 1, and
         rounded once to float32.  The negative half is the mirror image.
Output   32,768 little-endian float32, ascending.

    python tools/make_normal_table.py          writes the table, prints its sha256 and moments (about half a minute)
    python tools/make_normal_table.py --check  compares with the shipped file instead
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path
from statistics import NormalDist

import mpmath  # type: ignore[import-untyped]
import numpy as np

TABLE = Path(__file__).parents[1] / "hpcfed" / "noise" / "normal_v1.bin"
HALF = 32_768
BINS = 2 * HALF
DIGITS = 40  # decimal digits of every intermediate; float32 needs 8


def quantile(j: int) -> mpmath.mpf:
    """a_j with P(Z > a_j) = 1/2 - j/65536, by Newton's method from a double-precision start."""
    tail = mpmath.mpf(HALF - j) / BINS
    x = mpmath.mpf(-NormalDist().inv_cdf((HALF - j) / BINS))
    for _ in range(3):  # each step doubles the 15 digits of the start: 30, 60, 120
        x += (mpmath.erfc(x / mpmath.sqrt(2)) / 2 - tail) / mpmath.npdf(x)
    return x


def normal_table() -> tuple[np.ndarray, mpmath.mpf]:
    """The table, float32 [32768], and the mean square before rescaling."""
    with mpmath.workdps(DIGITS):
        densities = [mpmath.npdf(quantile(j)) for j in range(HALF)] + [mpmath.mpf(0)]
        means = [BINS * (densities[j] - densities[j + 1]) for j in range(HALF)]
        square = mpmath.fsum(m * m for m in means) / HALF
        root = mpmath.sqrt(square)
        return np.array([to_float32(m / root) for m in means], "<f4"), square


def to_float32(x: mpmath.mpf) -> np.float32:
    """The nearest float32 (ties cannot occur: the values are irrational), without rounding twice by way of double."""
    near = np.float32(float(x))
    candidates = (np.nextafter(near, np.float32(-np.inf)), near, np.nextafter(near, np.float32(np.inf)))
    return min(candidates, key=lambda c: abs(mpmath.mpf(float(c)) - x))


def main() -> None:
    """Write or check the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the shipped file, write nothing")
    check = parser.parse_args().check
    table, square = normal_table()
    raw = table.tobytes()
    z = table.astype(np.float64)
    print(f"sha256          {hashlib.sha256(raw).hexdigest()}")
    print(f"mean square     {mpmath.nstr(square, 12)} before rescaling, {np.mean(z**2):.12f} in float32")
    print(f"fourth moment   {np.mean(z**4):.9f} (normal: 3)   sixth {np.mean(z**6):.6f} (normal: 15)")
    print(f"range           {z[0]:.9g} .. {z[-1]:.9g}")
    if check:
        sys.exit(0 if TABLE.read_bytes() == raw else f"{TABLE} differs")
    TABLE.write_bytes(raw)
    print(f"wrote {TABLE} ({len(raw)} bytes)")


if __name__ == "__main__":
    main()
