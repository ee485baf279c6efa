"""Compile the Triton kernels for an H100, which needs no GPU, and print what matters of the code as JSON.

Run as a program, since one process either compiles kernels or interprets them.
"""

from __future__ import annotations

import json
import re
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from hpcfed.noise import triton_kernels as kernels

H100 = GPUTarget("cuda", 90, 32)
TYPES = {
    "starts": "*i64", "first": "i64", "stride": "i64", "length": "i64", "tiles": "i64", "seed": "*i64", "key": "u64",
    "key_a": "u64", "key_b": "u64", "mu": "fp32", "table": "*i32", "indices": "*i16", "steps": "*i64",
    "scales": "*fp32", "n": "i32", "params": "*i64", "rows": "i32", "sums": "*i64", "values": "*i32",
}  # fmt: skip
RUNS = {"LISTED": False, "ALIGNED": True}
MOVE = {"GAUSSIAN": True, "STOCHASTIC": True, "ONCE": False}
CASES = {
    "perturb float32": (kernels.perturb, 0, RUNS | {"GAUSSIAN": True, "BOTH": True}),
    "perturb bfloat16": (kernels.perturb, 1, RUNS | {"GAUSSIAN": True, "BOTH": True}),
    "perturb float16": (kernels.perturb, 2, RUNS | {"GAUSSIAN": False, "BOTH": True}),
    "perturb rows": (kernels.perturb, 1, {"GAUSSIAN": True, "BOTH": False, "LISTED": True, "ALIGNED": True}),
    "perturb anything": (kernels.perturb, 2, {"GAUSSIAN": True, "BOTH": True, "LISTED": False, "ALIGNED": False}),
    "move float32": (kernels.move, 0, RUNS | {"GAUSSIAN": False, "STOCHASTIC": False, "ONCE": True}),
    "move bfloat16": (kernels.move, 1, RUNS | MOVE),
    "move listed": (kernels.move, 1, {"LISTED": True, "ALIGNED": True} | MOVE),
    "move float16": (kernels.move, 2, RUNS | {"GAUSSIAN": True, "STOCHASTIC": True, "ONCE": True}),
}


def ptx_of(kernel: Any, constants: dict[str, Any], types: dict[str, str]) -> str:
    names = kernel.arg_names
    signature = {name: "constexpr" if name in constants else types[name] for name in names}
    aligned = {
        (i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if signature[name].startswith("*")
    }  # what torch's allocator gives
    source = ASTSource(kernel, signature, {(names.index(k),): v for k, v in constants.items()}, aligned)
    return str(triton.compile(source, target=H100, options={"num_warps": 4, "enable_fp_fusion": False}).asm["ptx"])


def main() -> None:
    found, codes = {}, {}
    for name, (kernel, kind, constants) in CASES.items():
        weights = dict.fromkeys(("w", "plus", "minus"), "*i32" if kind == 0 else "*i16")
        codes[name] = ptx_of(kernel, constants | {"KIND": kind, "G": 32}, TYPES | weights)
    codes["fingerprint"] = ptx_of(kernels.fingerprint, RUNS | {"SIZE": 4, "T": 2048}, TYPES)
    for name, ptx in codes.items():
        found[name] = {
            "contracted": len(re.findall(r"\b(?:fma|mad)\.\S*f32", ptx)),
            "may be contracted": len(re.findall(r"\b(?:mul|add|sub)\.(?:ftz\.)?f32", ptx)),  # .rn: each on its own
            "multiplied": ptx.count("mul.rn.f32"),
            "flushed": ptx.count(".ftz"),
            "barriers": ptx.count("bar.sync"),
            "wide loads": len(re.findall(r"ld\.global\.v[24]", ptx)),  # of 8 or 16 bytes; one is not of weights
            "wide stores": len(re.findall(r"st\.global\.v[24]", ptx)),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
