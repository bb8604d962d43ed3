"""Vector code for the scan of lists, which LLVM would not generate from a loop over scalars."""

import functools

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from torchdr_cne.simd import LANES, prefer_wide_vectors, splat

QUERIES = 8
"""Number of query rows that are compared with the same points at once, which hides the latency of an addition."""

_EARLY = 5, 8
"""Fraction of the columns after which points that are already too far are skipped."""

_FLOAT, _INT = ir.FloatType(), ir.IntType(32)
_FLOATS = ir.VectorType(_FLOAT, LANES)
_INTS = ir.VectorType(_INT, LANES)
_LANE_BITS = ir.IntType(LANES)


def _pointer(builder, address, kind):
    return builder.inttoptr(address, kind.as_pointer())


def _multiply_add(builder):
    kind = ir.FunctionType(_FLOATS, [_FLOATS] * 3)
    return cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{LANES}f32")


@intrinsic
def squared_distances(typing_context, points, rows, n_columns, limits, keys, masks):
    """Write the squared distances of ``QUERIES`` rows to ``LANES`` points; all arguments but one are addresses.

    ``points`` holds (n_columns, LANES) floats, ``rows`` the address of each row. ``keys`` receives (QUERIES, LANES)
    floats, ``masks`` for each row the bits of the points nearer than its limit. The result is whether there are any;
    if not, nothing is written, and the last columns are skipped if the first ones are enough to tell.
    """

    def generate(context, builder, signature, arguments):
        prefer_wide_vectors(builder)
        builder.function.attributes.add("noinline")  # compiled once, and not again within every caller
        points, rows, n_columns, limits, keys, masks = arguments
        points, rows = _pointer(builder, points, _FLOATS), _pointer(builder, rows, n_columns.type)
        limits, keys = _pointer(builder, limits, _FLOAT), _pointer(builder, keys, _FLOATS)
        masks = _pointer(builder, masks, _LANE_BITS)
        indices = [ir.Constant(_INT, q) for q in range(QUERIES)]
        starts = [_pointer(builder, builder.load(builder.gep(rows, [q])), _FLOAT) for q in indices]
        sums = [cgutils.alloca_once(builder, _FLOATS) for _ in indices]
        result = cgutils.alloca_once(builder, ir.IntType(1))
        for total in sums:
            builder.store(ir.Constant(_FLOATS, [0.0] * LANES), total)
        builder.store(ir.Constant(ir.IntType(1), 0), result)
        many = builder.udiv(builder.mul(n_columns, n_columns.type(_EARLY[0])), n_columns.type(_EARLY[1]))
        _add_columns(builder, points, starts, sums, n_columns.type(0), many)
        with builder.if_then(_any(builder, _nearer(builder, sums, limits)), likely=True):
            _add_columns(builder, points, starts, sums, many, n_columns)
            nearer = _nearer(builder, sums, limits)
            found = _any(builder, nearer)
            builder.store(found, result)
            with builder.if_then(found, likely=False):
                for q, total, mask in zip(indices, sums, nearer, strict=True):
                    builder.store(builder.load(total), builder.gep(keys, [q]), align=4)
                    builder.store(mask, builder.gep(masks, [q]))
        return builder.load(result)

    address = types.uintp
    return types.boolean(address, address, types.intp, address, address, address), generate


def _add_columns(builder, points, starts, sums, first, last):
    """Add the squared differences in columns [first, last) to ``sums``."""
    multiply_add = _multiply_add(builder)
    with cgutils.for_range_slice(builder, first, last, last.type(1), last.type) as (index, _):
        column = builder.load(builder.gep(points, [index]), align=4)
        for start, total in zip(starts, sums, strict=True):
            value = splat(builder, builder.load(builder.gep(start, [index])), _FLOATS)
            gap = builder.fsub(column, value)
            builder.store(builder.call(multiply_add, [gap, gap, builder.load(total)]), total)


def _nearer(builder, sums, limits):
    """Return for each row the bits of the points whose sum is below its limit."""
    masks = []
    for q, total in enumerate(sums):
        limit = splat(builder, builder.load(builder.gep(limits, [ir.Constant(_INT, q)])), _FLOATS)
        masks.append(builder.bitcast(builder.fcmp_ordered("<", builder.load(total), limit), _LANE_BITS))
    return masks


def _any(builder, masks):
    return builder.icmp_unsigned("!=", functools.reduce(builder.or_, masks), ir.Constant(_LANE_BITS, 0))


@intrinsic
def squared_distance(typing_context, one, other, n_columns):
    """Return the squared distance of two rows, which are whole vectors wide and given by their addresses."""

    def generate(context, builder, signature, arguments):
        one, other = (_pointer(builder, row, _FLOATS) for row in arguments[:2])
        n_vectors = builder.udiv(arguments[2], arguments[2].type(LANES))
        multiply_add = _multiply_add(builder)
        total = cgutils.alloca_once(builder, _FLOATS)
        builder.store(ir.Constant(_FLOATS, [0.0] * LANES), total)
        with cgutils.for_range(builder, n_vectors) as loop:
            a, b = (builder.load(builder.gep(row, [loop.index]), align=4) for row in (one, other))
            gap = builder.fsub(a, b)
            builder.store(builder.call(multiply_add, [gap, gap, builder.load(total)]), total)
        folded, width = builder.load(total), LANES
        while width > 1:
            width //= 2
            lanes = [[*range(start, start + width)] for start in (0, width)]
            low, high = (
                builder.shuffle_vector(folded, folded, ir.Constant(ir.VectorType(_INT, width), half)) for half in lanes
            )
            folded = builder.fadd(low, high)
        return builder.extract_element(folded, ir.Constant(_INT, 0))

    return types.float32(types.uintp, types.uintp, types.intp), generate


@intrinsic
def first_bit(typing_context, mask):
    """Return the number of the lowest set bit of a non-zero uint64."""

    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.intp(types.uint64), generate


@intrinsic
def insert(typing_context, keys, ids, n_vectors, key, new_id):
    """Insert a point into a list sorted by (key, id), and drop the last; ``keys`` and ``ids`` are addresses."""

    def generate(context, builder, signature, arguments):
        keys, ids, n_vectors, key, new_id = arguments
        keys, ids = _pointer(builder, keys, _FLOATS), _pointer(builder, ids, _INTS)
        new_keys, new_ids = splat(builder, key, _FLOATS), splat(builder, new_id, _INTS)
        lowest = ir.Constant(_FLOAT, float("-inf")), ir.Constant(_INT, 0)
        carried = [cgutils.alloca_once_value(builder, value) for value in lowest]
        for slot, value in zip(carried, lowest, strict=True):
            builder.store(value, slot)
        with cgutils.for_range(builder, n_vectors) as loop:
            places = [builder.gep(array, [loop.index]) for array in (keys, ids)]
            old = [builder.load(place, align=4) for place in places]
            left = [_push(builder, builder.load(slot), vector) for slot, vector in zip(carried, old, strict=True)]
            stays = _precedes(builder, *old, new_keys, new_ids)
            follows = _precedes(builder, *left, new_keys, new_ids)
            for slot, vector in zip(carried, old, strict=True):
                builder.store(builder.extract_element(vector, ir.Constant(_INT, LANES - 1)), slot)
            for place, a, b, new in zip(places, old, left, (new_keys, new_ids), strict=True):
                builder.store(builder.select(stays, a, builder.select(follows, new, b)), place, align=4)
        return context.get_dummy_value()

    address = types.uintp
    return types.void(address, address, types.intp, types.float32, types.int32), generate


def _precedes(builder, keys, ids, other_keys, other_ids):
    equal = builder.fcmp_ordered("==", keys, other_keys)
    earlier = builder.and_(equal, builder.icmp_signed("<", ids, other_ids))
    return builder.or_(builder.fcmp_ordered("<", keys, other_keys), earlier)


def _push(builder, scalar, vector):
    """Return ``scalar`` followed by all but the last lane of ``vector``."""
    shifted = ir.Constant(ir.VectorType(_INT, LANES), [LANES - 1, *range(LANES - 1)])
    rotated = builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), shifted)
    return builder.insert_element(rotated, scalar, ir.Constant(_INT, 0))
