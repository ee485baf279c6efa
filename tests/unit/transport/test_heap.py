"""Freed memory that stays: counted in page faults, in processes of their own."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

from hpcfed.transport import device

FAULTS = """
import resource
import sys
from hpcfed.transport.device import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()
for _ in range(5):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytearray(b"x") * 2**26  # 16,384 pages
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(what: str, **settings: str) -> int:
    """Page faults of the fifth of five equal arrays, each freed before the next."""
    own = {name: value for name, value in os.environ.items() if name not in device.HEAP_SETTINGS}
    done = subprocess.run([sys.executable, "-c", FAULTS, what], env=own | settings, capture_output=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_the_next_block_of_a_size_finds_its_pages():
    assert faults("keep") < 100 < 1000 < faults("leave")


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_a_user_s_own_setting_wins():
    assert faults("keep", MALLOC_MMAP_THRESHOLD_="1000000") > 1000
