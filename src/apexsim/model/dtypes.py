"""Number formats: bytes stored, kernel that multiplies them (floor 1).

One row per format.  `stored` is the bytes per parameter including scales; `kernel` the GEMM kernel key; a weight-only
format multiplies in 16 bit but moves `stored` bytes.  Scales: block FP8 one fp32 per 128x128, int4 group 128 with
16-bit scale, NF4 16 bit per 64 (start-up logs), MXFP4 one byte per 32, NVFP4 one byte per 16 (OCP MX v1.0; NVIDIA NVFP4).

"int4~4.5" is int4 with 4.5 bits stored per parameter: other group sizes, zero points, layers left in 16 bit.  It is
multiplied as int4 is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from apexsim.errors import InputError, nearest


@dataclass(frozen=True, slots=True)
class Dtype:
    """A storage format of weights, activations or KV cache."""

    name: str
    stored: float  # [byte/parameter], scales included
    kernel: str  # GEMM kernel key
    compute: str  # peak used for the ideal time: fp32, bf16, fp8, int8, fp4
    weight_only: bool = False


DTYPES = {
    d.name: d
    for d in (
        Dtype("fp32", 4.0, "fp32", "fp32"),
        Dtype("bf16", 2.0, "bf16", "bf16"),
        Dtype("fp16", 2.0, "bf16", "bf16"),
        Dtype("fp8", 1.0, "fp8", "fp8"),
        Dtype("fp8_block", 1.0 + 4.0 / 128**2, "fp8_block", "fp8"),
        Dtype("w8a8", 1.0, "int8", "int8"),
        Dtype("int8", 1.0 + 2.0 / 128, "w8a16", "bf16", weight_only=True),
        Dtype("int4", 0.5 + 2.0 / 128, "w4a16", "bf16", weight_only=True),
        Dtype("awq", 0.52, "w4a16", "bf16", weight_only=True),
        Dtype("w4a8", 0.5, "w4a16", "bf16", weight_only=True),
        Dtype("int2", 0.25 + 2.0 / 128, "w4a16", "bf16", weight_only=True),
        Dtype("int3", 0.375 + 2.0 / 128, "w4a16", "bf16", weight_only=True),
        Dtype("int5", 0.625 + 2.0 / 128, "w8a16", "bf16", weight_only=True),
        Dtype("int6", 0.75 + 2.0 / 128, "w8a16", "bf16", weight_only=True),
        Dtype("fp6", 0.75 + 2.0 / 128, "w8a16", "bf16", weight_only=True),
        Dtype("nf4", 0.5 + 2.0 / 64, "w4a16", "bf16", weight_only=True),
        Dtype("mxfp4", 0.5 + 1.0 / 32, "mxfp4", "fp4"),
        Dtype("nvfp4", 0.5 + 1.0 / 16, "nvfp4", "fp4"),
    )
}

ALIASES = {
    "bfloat16": "bf16", "float16": "fp16", "half": "fp16", "float": "fp32", "float32": "fp32", "float8": "fp8",
    "fp8_e4m3": "fp8", "fp8_e5m2": "fp8", "fp4": "nvfp4", "gptq": "int4", "w4a16": "int4", "w8a16": "int8",
}  # fmt: skip


STATED = re.compile(r"(\w+)~(\d{1,2}(?:\.\d{1,4})?)")  # format~bits
SAME = 0.01  # stored sizes closer than this are one format
MOST_BITS = 32.0


def dtype(name: str, where: str = "") -> Dtype:
    """The format called `name`, or "name~bits"; raises InputError with the nearest names."""
    stated = STATED.fullmatch(name)
    if stated and 1.0 <= float(stated[2]) <= MOST_BITS:
        plain = dtype(stated[1], where)
        return replace(plain, name=f"{plain.name}~{stated[2]}", stored=float(stated[2]) / 8)
    key = ALIASES.get(name.lower(), name.lower())
    if key not in DTYPES:
        raise InputError(f"unknown number format '{name}'", where, nearest(name, [*DTYPES, *ALIASES]))
    return DTYPES[key]


def with_bits(name: str, bits: float) -> str:
    """The name of format `name` when it stores so many bits per parameter."""
    return name if abs(bits / (8 * DTYPES[name].stored) - 1.0) < SAME else f"{name}~{round(bits, 3):g}"
