"""How the threads of one step share out its passes without leaving compiled code: dealt ranges, and a barrier."""

import sys

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from torchdr_cne.forces.numerics import jit
from torchdr_cne.forces.vectors import pointer_to

COUNTER_STRIDE = 16
"""Counters stand this far apart, so that no two share a cache line."""

_YIELD = "SwitchToThread" if sys.platform == "win32" else "sched_yield"
_SPINS = 200
_INT = ir.IntType(64)


@intrinsic
def _fetch_add(typing_context, counters, place, amount):
    """Add to a counter, all at once for all threads, and return what it was."""

    def generate(context, builder, sig, arguments):
        counter = pointer_to(context, builder, sig.args[0], arguments[0], arguments[1], _INT)
        return builder.atomic_rmw("add", counter, arguments[2], "seq_cst")

    return types.int64(counters, types.int64, types.int64), generate


@intrinsic
def _read(typing_context, counters, place):
    """Return a counter's value as the last thread has left it."""

    def generate(context, builder, sig, arguments):
        counter = pointer_to(context, builder, sig.args[0], arguments[0], arguments[1], _INT)
        return builder.load_atomic(counter, "acquire", align=8)

    return types.int64(counters, types.int64), generate


@intrinsic
def _let_others_run(typing_context):
    """Give the processor to another thread that waits for one."""

    def generate(context, builder, sig, arguments):
        kind = ir.FunctionType(ir.IntType(32), [])
        function = builder.module.globals.get(_YIELD) or ir.Function(builder.module, kind, _YIELD)
        builder.call(function, [])
        return context.get_dummy_value()

    return types.void(), generate


@jit
def take(counters, place, amount):
    """Return the beginning of the next ``amount`` items of work that nobody has taken."""
    return _fetch_add(counters, place * COUNTER_STRIDE, amount)


@jit
def wait_for_all(counters, place, n_threads):
    """Go on when ``n_threads`` threads have come here."""
    place *= COUNTER_STRIDE
    _fetch_add(counters, place, 1)
    spins = 0
    while _read(counters, place) < n_threads:
        spins += 1
        if spins > _SPINS:
            _let_others_run()
