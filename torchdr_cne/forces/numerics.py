"""Float32 building blocks of the compiled kernels: literals, wide vectors, and a power without branch or call."""

import types
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import types as numba_types
from numba.extending import intrinsic

from torchdr_cne import simd
from torchdr_cne.forces.vectors import splat_ir, vector
from torchdr_cne.simd import LANES

_OPTIONS: dict[str, Any] = {"nogil": True, "fastmath": True, "error_model": "numpy"}
"""The default error model puts a branch into every division, which stops vectorisation."""
_NO_WRAPPERS: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
jit: Any = njit(**_OPTIONS, **_NO_WRAPPERS)
"""Compiles a function that kernels call. Python cannot call it: its wrappers would take a third of the compilation."""
kernel_jit: Any = njit(**_OPTIONS)
"""Compiles a kernel, which Python calls."""

_F = np.float32


def single_precision(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``function`` with its float literals as float32, so that they do not promote to float64."""
    code = function.__code__
    constants = tuple(_F(value) if isinstance(value, float) else value for value in code.co_consts)
    copy = types.FunctionType(code.replace(co_consts=constants), function.__globals__, function.__name__)
    copy.__module__ = __name__  # Numba imports it when it loads cached code; the user's may not be importable
    return copy


@intrinsic
def prefer_wide_vectors(typing_context):
    """Let LLVM use 512-bit vectors in the calling function where the processor has them."""

    def generate(context, builder, signature, arguments):
        simd.prefer_wide_vectors(builder)
        return context.get_dummy_value()

    return numba_types.void(), generate


@intrinsic
def inlined(typing_context):
    """Let LLVM inline the calling function wherever it is called.

    A function that is called is found by its symbol, which the process that has compiled it defines twice: by itself,
    and as a copy within its caller, which LLVM has optimised once more. Their sums may have other last bits, and a
    process that reads the caller from the cache has the copy only.
    """

    def generate(context, builder, signature, arguments):
        builder.function.attributes.add("alwaysinline")
        return context.get_dummy_value()

    return numba_types.void(), generate


def _fit(function: Callable[[np.ndarray], np.ndarray], low: float, high: float, degree: int) -> list[np.float32]:
    """Near-minimax polynomial coefficients of ``function`` on [low, high], by Chebyshev interpolation."""
    nodes = np.cos(np.pi * (np.arange(256) + 0.5) / 256) * (high - low) / 2 + (high + low) / 2
    fit = np.polynomial.Chebyshev.fit(nodes, function(nodes), degree, domain=[low, high])
    return [_F(c) for c in fit.convert(kind=np.polynomial.Polynomial).coef]


# log2(1 + u) / u for 1 + u in [√½, √2], and 2^r for r in [−½, ½].
_LOG2 = _fit(lambda u: np.log2(1 + u) / u, 0.5**0.5 - 1, 2**0.5 - 1, 6)
_EXP2 = _fit(np.exp2, -0.5, 0.5, 5)
_SQRT_HALF_BITS = 0x3F3504F3


@intrinsic
def power(typing_context, base, exponent):
    """base ** exponent, at least 2^−126, for positive normal bases.

    Relative error below 4e-6 for |log2| < 40.

    2^(exponent · log2 base): the logarithm from the exponent bits and a polynomial of degree 6, the power of two from
    a polynomial of degree 5 and exponent bits. Neither branch nor call; ``base`` is a float32 or a `vector` of them.
    """
    if base != vector and base != numba_types.float32:
        return None

    def generate(context, builder, signature, arguments):
        wide = signature.args[0] == vector
        real = ir.VectorType(ir.FloatType(), LANES) if wide else ir.FloatType()
        whole = ir.VectorType(ir.IntType(32), LANES) if wide else ir.IntType(32)

        def constant(kind, value):
            return ir.Constant(kind, [value] * LANES if wide else value)

        def polynomial(coefficients, x):
            total = constant(real, float(coefficients[-1]))
            for coefficient in coefficients[-2::-1]:
                total = builder.fadd(constant(real, float(coefficient)), builder.fmul(x, total))
            return total

        x, exponent = arguments
        exponent = splat_ir(builder, exponent) if wide and signature.args[1] != vector else exponent
        bits = builder.bitcast(x, whole)
        octave = builder.ashr(builder.sub(bits, constant(whole, _SQRT_HALF_BITS)), constant(whole, 23))
        mantissa_bits = builder.sub(bits, builder.shl(octave, constant(whole, 23)))
        u = builder.fsub(builder.bitcast(mantissa_bits, real), constant(real, 1.0))
        log2 = builder.fadd(builder.sitofp(octave, real), builder.fmul(u, polynomial(_LOG2, u)))
        y = builder.fmul(exponent, log2)
        least = constant(real, -126.0)  # of what is smaller the exponent's bits would run over
        y = builder.select(builder.fcmp_ordered(">", y, least), y, least)
        # Truncation towards zero is a floor here, because the sum is positive.
        rounded = builder.fptosi(builder.fadd(y, constant(real, 126.5)), whole)
        r = builder.fsub(y, builder.sitofp(builder.sub(rounded, constant(whole, 126)), real))
        scale = builder.shl(builder.add(rounded, constant(whole, 1)), constant(whole, 23))
        return builder.fmul(polynomial(_EXP2, r), builder.bitcast(scale, real))

    return base(base, exponent), generate
