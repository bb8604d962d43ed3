"""Vectors of float32 in LLVM's terms, for kernels that do not leave it to a compiler to find them."""

from typing import Any

from llvmlite import ir

LANES = 16
"""Numbers of a vector. LLVM splits it where the processor's own vectors are shorter."""


def lanes(order: Any) -> ir.Constant:
    """Return which lanes a shuffle takes."""
    return ir.Constant(ir.VectorType(ir.IntType(32), len(order)), list(order))


def splat(builder: Any, value: Any, kind: ir.VectorType) -> Any:
    """Repeat a scalar over the lanes of ``kind``."""
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), lanes([0] * kind.count))


def prefer_wide_vectors(builder: Any) -> None:
    """Let LLVM use 512-bit vectors in the function that is built, where the processor has them."""
    # llvmlite checks attribute names against a list that lacks this one; it prints as given.
    set.add(builder.function.attributes, '"prefer-vector-width"="512"')
