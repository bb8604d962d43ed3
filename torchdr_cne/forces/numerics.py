"""Float32 building blocks of the compiled kernels: literals, bit casts, and a vectorisable power."""

import types
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import types as numba_types
from numba.extending import intrinsic

jit: Any = njit(nogil=True, fastmath=True, error_model="numpy")
"""How kernels are compiled. The default error model puts a branch into every division, which stops vectorisation."""

_F, _I = np.float32, np.int32


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
        # llvmlite checks attribute names against a list that lacks this one; it prints as given.
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return numba_types.void(), generate


@intrinsic
def _bits_of(typing_context, x):
    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.IntType(32))

    return numba_types.int32(numba_types.float32), generate


@intrinsic
def _float_of(typing_context, bits):
    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.FloatType())

    return numba_types.float32(numba_types.int32), generate


def _fit(function: Callable[[np.ndarray], np.ndarray], low: float, high: float, degree: int) -> list[np.float32]:
    """Near-minimax polynomial coefficients of ``function`` on [low, high], by Chebyshev interpolation."""
    nodes = np.cos(np.pi * (np.arange(256) + 0.5) / 256) * (high - low) / 2 + (high + low) / 2
    fit = np.polynomial.Chebyshev.fit(nodes, function(nodes), degree, domain=[low, high])
    return [_F(c) for c in fit.convert(kind=np.polynomial.Polynomial).coef]


# log2(1 + u) / u for 1 + u in [√½, √2], and 2^r for r in [−½, ½].
_L0, _L1, _L2, _L3, _L4, _L5, _L6 = _fit(lambda u: np.log2(1 + u) / u, 0.5**0.5 - 1, 2**0.5 - 1, 6)
_E0, _E1, _E2, _E3, _E4, _E5 = _fit(np.exp2, -0.5, 0.5, 5)
_SQRT_HALF_BITS = _I(0x3F3504F3)


@jit
def power(base, exponent):
    """base ** exponent for positive normal float32 results; relative error below 4e-6 for |log2| < 40.

    2^(exponent · log2 base): the logarithm from the exponent bits and a polynomial of degree 6, the power of
    two from a polynomial of degree 5 and exponent bits. No branch and no call, so loops over it vectorise.
    """
    bits = _bits_of(base)
    octave = _I((bits - _SQRT_HALF_BITS) >> _I(23))
    u = _float_of(_I(bits - _I(octave << _I(23)))) - _F(1)
    log2_mantissa = u * (_L0 + u * (_L1 + u * (_L2 + u * (_L3 + u * (_L4 + u * (_L5 + u * _L6))))))
    y = exponent * (_F(octave) + log2_mantissa)
    whole = _I(y + _F(126.5))  # truncates towards zero: a floor, because the sum is positive
    r = y - _F(_I(whole - _I(126)))
    mantissa = _E0 + r * (_E1 + r * (_E2 + r * (_E3 + r * (_E4 + r * _E5))))
    return mantissa * _float_of(_I(_I(whole + _I(1)) << _I(23)))
