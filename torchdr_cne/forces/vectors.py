"""A vector of 16 float32 as a Numba type.

Declared forces run on it as they are, so that nothing hangs on a compiler's willingness to vectorise a loop. LLVM
splits it where the processor's own vectors are shorter.
"""

import operator
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

from torchdr_cne import simd
from torchdr_cne.simd import LANES, lanes

_FLOAT, _INT = ir.FloatType(), ir.IntType(64)
_VECTOR = ir.VectorType(_FLOAT, LANES)


class Vector(types.Type):
    """Sixteen float32."""

    def __init__(self) -> None:
        super().__init__(name="float32x16")


vector = Vector()


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        super().__init__(manager, kind, _VECTOR)


def splat_ir(builder: Any, value: Any) -> Any:
    """Repeat a scalar over the lanes."""
    return simd.splat(builder, value, _VECTOR)


def _define(operation: Any, instruction: str) -> None:
    """Give ``operation`` a meaning for vectors, and for vectors with scalars."""
    pairs = ((vector, vector), (vector, types.float32), (types.float32, vector))

    @infer_global(operation)
    class _Typing(ConcreteTemplate):
        cases = [signature(vector, *pair) for pair in pairs]

    def lower(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        both = [
            value if kind == vector else splat_ir(builder, value)
            for kind, value in zip(sig.args, arguments, strict=True)
        ]
        return getattr(builder, instruction)(*both)

    for pair in pairs:
        lower_builtin(operation, *pair)(lower)


for _name, _instruction in (("add", "fadd"), ("sub", "fsub"), ("mul", "fmul"), ("truediv", "fdiv")):
    _define(getattr(operator, _name), _instruction)
    _define(getattr(operator, f"i{_name}"), _instruction)


@infer_global(operator.neg)
class _NegationTyping(ConcreteTemplate):
    cases = [signature(vector, vector)]


@lower_builtin(operator.neg, vector)
def _negate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
    return builder.fneg(arguments[0])


def pointer_to(context: Any, builder: Any, array_type: Any, array: Any, offset: Any, kind: ir.Type) -> Any:
    """Pointer to entry ``offset`` of a contiguous array, as one to ``kind``."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [offset]), kind.as_pointer())


@intrinsic
def load(typing_context, array, at):
    """Return the vector ``array[at : at + 16]`` of a contiguous float32 array."""

    def generate(context, builder, sig, arguments):
        at = context.cast(builder, arguments[1], sig.args[1], types.int64)
        loaded = builder.load(pointer_to(context, builder, sig.args[0], arguments[0], at, _VECTOR))
        loaded.align = 4
        return loaded

    return vector(array, at), generate


@intrinsic
def store(typing_context, array, at, value):
    """Write a vector to ``array[at : at + 16]`` of a contiguous float32 array."""

    def generate(context, builder, sig, arguments):
        at = context.cast(builder, arguments[1], sig.args[1], types.int64)
        place = pointer_to(context, builder, sig.args[0], arguments[0], at, _VECTOR)
        builder.store(arguments[2], place).align = 4
        return context.get_dummy_value()

    return types.void(array, at, value), generate


@intrinsic
def splat(typing_context, value):
    """Return a vector of 16 times a float32."""

    def generate(context, builder, sig, arguments):
        return splat_ir(builder, arguments[0])

    return vector(types.float32), generate


@intrinsic
def is_above(typing_context, value, bound):
    """Return 1 in the lanes of a vector that are above a float32, and 0 in the others."""

    def generate(context, builder, sig, arguments):
        above = builder.fcmp_ordered(">", arguments[0], splat_ir(builder, arguments[1]))
        return builder.uitofp(above, _VECTOR)

    return vector(vector, types.float32), generate


@intrinsic
def lane_sum(typing_context, value):
    """Return the sum of a vector's lanes, halved again and again."""

    def generate(context, builder, sig, arguments):
        total = arguments[0]
        while total.type.count > 1:
            half = total.type.count // 2
            low, high = (builder.shuffle_vector(total, total, lanes(range(k, k + half))) for k in (0, half))
            total = builder.fadd(low, high)
        return builder.extract_element(total, ir.Constant(ir.IntType(32), 0))

    return types.float32(vector), generate


def make_gather(width: int) -> Any:
    """Return ``gather(points, columns, start, out, at)``: random look-ups, one load a point and not one a number.

    ``points`` is (slots, ``width``); component c of the points ``columns[start : start + 16]`` is written to
    ``out[at + 16 c : at + 16 c + 16]``. The points are transposed in registers.
    """
    padded = 1 << (width - 1).bit_length()
    point_type = ir.VectorType(_FLOAT, width)

    def generate(context, builder, sig, arguments):
        start, at = (context.cast(builder, arguments[k], sig.args[k], types.int64) for k in (2, 4))
        columns = pointer_to(context, builder, sig.args[1], arguments[1], start, ir.IntType(32))
        points = pointer_to(context, builder, sig.args[0], arguments[0], ir.Constant(_INT, 0), _FLOAT)
        loaded = []
        for lane in range(LANES):
            column = builder.zext(builder.load(builder.gep(columns, [ir.Constant(_INT, lane)])), _INT)
            place = builder.gep(points, [builder.mul(column, ir.Constant(_INT, width))])
            point = builder.load(builder.bitcast(place, point_type.as_pointer()))
            point.align = 4
            filled = [*range(width), *[0] * (padded - width)]
            loaded.append(builder.shuffle_vector(point, point, lanes(filled)) if padded != width else point)
        while len(loaded) > 1:
            joined = lanes(range(2 * loaded[0].type.count))
            loaded = [builder.shuffle_vector(loaded[k], loaded[k + 1], joined) for k in range(0, len(loaded), 2)]
        for c in range(width):
            component = builder.shuffle_vector(loaded[0], loaded[0], lanes(range(c, LANES * padded, padded)))
            offset = builder.add(at, ir.Constant(_INT, LANES * c))
            place = pointer_to(context, builder, sig.args[3], arguments[3], offset, _VECTOR)
            builder.store(component, place).align = 4
        return context.get_dummy_value()

    @intrinsic
    def gather(typing_context, points, columns, start, out, at):
        return types.void(points, columns, start, out, at), generate

    return gather
