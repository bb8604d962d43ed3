"""Power and division of Triton kernels, by the fast instructions of NVIDIA's devices where these compute."""

from typing import Any

import torch
import triton
import triton.language as tl


def fast_arithmetic() -> bool:
    """Return whether the instructions of NVIDIA's devices are used; AMD's have others."""
    return torch.version.hip is None


def power_function(interprets: bool) -> Any:
    """Return the ``power`` that is handed to declared functions."""
    return power if fast_arithmetic() and not interprets else plain_power


@triton.jit
def power(base, exponent):
    """Return base ** exponent of a positive float32 base."""
    log2 = tl.inline_asm_elementwise(
        "lg2.approx.ftz.f32 $0, $1;", "=f,f", [base], dtype=tl.float32, is_pure=True, pack=1
    )
    return tl.inline_asm_elementwise(
        "ex2.approx.ftz.f32 $0, $1;", "=f,f", [exponent * log2], dtype=tl.float32, is_pure=True, pack=1
    )


@triton.jit
def plain_power(base, exponent):
    """Return base ** exponent by operations that every back end has."""
    return tl.exp2(exponent * tl.log2(base))


@triton.jit
def divide(dividend, divisor):
    """Return dividend / divisor by an approximate inverse, whose relative error is at most 2^−23."""
    inverse = tl.inline_asm_elementwise(
        "rcp.approx.ftz.f32 $0, $1;", "=f,f", [divisor], dtype=tl.float32, is_pure=True, pack=1
    )
    return dividend * inverse
