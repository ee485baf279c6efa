"""What the Numba kernels are written with: how they are compiled, addresses as arrays, floats as bits."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

Array = np.ndarray[Any, Any]
I64, F64, STARTS = types.int64, types.float64, types.int64[::1]
jit = njit(nogil=True, cache=True, error_model="numpy")


def kernel(*arguments: Any, returns: Any = types.void) -> Any:
    """Compiled when imported (from the cache but for the first time), for one signature only."""
    return njit(returns(*arguments), nogil=True, cache=True, error_model="numpy")


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
