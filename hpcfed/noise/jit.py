"""What the Numba kernels are written with: how they are compiled, addresses as arrays, floats as bits.

Compiled kernels are kept in the first folder of places.py that can be written. Whatever a folder does then (it fills
up, it holds damaged files), the next one is taken, and with none left a kernel is compiled at every start.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils, config
from numba.extending import intrinsic

from ..places import kernel_folders

Array = np.ndarray[Any, Any]
I64, F64, STARTS = types.int64, types.float64, types.int64[::1]
jit = njit(nogil=True, error_model="numpy")  # a part of the kernels that call it, and kept with them


def kernel(*arguments: Any, returns: Any = types.void) -> Any:
    """Compiled when imported (from the cache but for the first time), for one signature only."""
    signature = returns(*arguments)

    def compiled(function: Any) -> Any:
        while _folders.current:
            before, config.CACHE_DIR = config.CACHE_DIR, str(_folders.current)
            try:
                return njit(signature, nogil=True, cache=True, error_model="numpy")(function)
            except OSError:  # the disk is full, say
                _folders.take_next()
            except Exception:  # whatever unpickling damaged files raises: they are made anew at the next start
                shutil.rmtree(_folders.current, ignore_errors=True)
                _folders.take_next()
            finally:
                config.CACHE_DIR = before
        return njit(signature, nogil=True, error_model="numpy")(function)

    return compiled


class _Folders:
    """current: where kernels are kept now; None: nowhere."""

    def __init__(self, candidates: Iterator[tuple[Path, str]]) -> None:
        self._left = (folder for folder, why in candidates if not why)
        self.take_next()

    def take_next(self) -> None:
        self.current = next(self._left, None)


_folders = _Folders(kernel_folders())


@intrinsic
def pointer(typing: Any, address: Any) -> Any:
    """An integer as a pointer, for carray()."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), codegen


@intrinsic
def prefetch(typing: Any, address: Any) -> Any:
    """Begin to fetch the cache line of an address, to be written; no address is a wrong one."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        line = builder.inttoptr(args[0], cgutils.voidptr_t)
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, number, number, number])
        call = builder.module.declare_intrinsic("llvm.prefetch", [cgutils.voidptr_t], kind)
        builder.call(call, [line, number(1), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@intrinsic
def bits_of(typing: Any, x: Any) -> Any:
    """The bits of a float32."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(types.uint32))

    return types.uint32(types.float32), codegen


@intrinsic
def float_of(typing: Any, bits: Any) -> Any:
    """The float32 of some bits."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(types.float32))

    return types.float32(types.uint32), codegen
