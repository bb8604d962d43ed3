"""Sums over all pairs (Numba): 16 rows at a time, each against every other point, in one fixed order."""

import types
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from torchdr_cne.forces.caching import cached_kernel, content_name, named_jit
from torchdr_cne.forces.declaration import PairForces
from torchdr_cne.forces.numerics import inlined, power, prefer_wide_vectors, single_precision
from torchdr_cne.forces.vectors import load, splat, store
from torchdr_cne.simd import LANES

_F = np.float32
_TOGETHER = 256
"""So many terms are added up by themselves before they join the sum: rounding grows with the number of additions."""
MAX_COMPONENTS = 3
_ALL_PAIRS = 1
"""Sets these kernels apart from others of the same declaration."""


@lru_cache(maxsize=64)
def kernel_of(forces: PairForces, n_components: int) -> Any:
    """Return ``kernel(first, last, start, z, charges, p, totals, forces)`` for up to three components.

    For the rows [16 first, 16 last) of those from ``start`` on it writes Σ_j c_j q_ij to ``totals`` (own,) and
    Σ_j c_j q'_ij (z_i − z_j) to ``forces`` (d · own,), without j = i; ``z`` (d · slots,) has one component after the
    other.
    """
    name = content_name(forces, _ALL_PAIRS, n_components)
    f = SimpleNamespace(
        jit=named_jit(name),
        q=named_jit(name)(single_precision(forces.normaliser)),  # type: ignore[arg-type]  # methods of sums have one
        slope=named_jit(name)(single_precision(forces.repulsive)),
    )
    return cached_kernel(_kernel(f, _coordinates(name, n_components), n_components), name)


def _coordinates(name: str, d: int) -> SimpleNamespace:
    """Return compiled arithmetic of 1, 2 or 3 numbers or vectors, as tuples: they stay in registers."""
    functions = {1: _ONE, 2: _TWO, 3: _THREE}[d]
    return SimpleNamespace(
        **{part: named_jit(f"{part}.{name}")(_copied(function)) for part, function in functions.items()}
    )


def _copied(function: Any) -> Any:
    return types.FunctionType(function.__code__, function.__globals__, function.__name__)


_ONE: dict[str, Any] = {
    "rows": lambda z, n, k: (load(z, k),),  # type: ignore[call-arg]  # an intrinsic
    "point": lambda z, n, k: (z[k],),
    "minus": lambda a, b: (a[0] - b[0],),
    "square": lambda a: a[0] * a[0],
    "add": lambda a, b: (a[0] + b[0],),
    "add_times": lambda a, x, b: (a[0] + x * b[0],),
    "repeated": lambda x: (x,),
}
_TWO: dict[str, Any] = {
    "rows": lambda z, n, k: (load(z, k), load(z, n + k)),  # type: ignore[call-arg]  # an intrinsic
    "point": lambda z, n, k: (z[k], z[n + k]),
    "minus": lambda a, b: (a[0] - b[0], a[1] - b[1]),
    "square": lambda a: a[0] * a[0] + a[1] * a[1],
    "add": lambda a, b: (a[0] + b[0], a[1] + b[1]),
    "add_times": lambda a, x, b: (a[0] + x * b[0], a[1] + x * b[1]),
    "repeated": lambda x: (x, x),
}
_THREE: dict[str, Any] = {
    "rows": lambda z, n, k: (load(z, k), load(z, n + k), load(z, 2 * n + k)),  # type: ignore[call-arg]  # an intrinsic
    "point": lambda z, n, k: (z[k], z[n + k], z[2 * n + k]),
    "minus": lambda a, b: (a[0] - b[0], a[1] - b[1], a[2] - b[2]),
    "square": lambda a: a[0] * a[0] + a[1] * a[1] + a[2] * a[2],
    "add": lambda a, b: (a[0] + b[0], a[1] + b[1], a[2] + b[2]),
    "add_times": lambda a, x, b: (a[0] + x * b[0], a[1] + x * b[1], a[2] + x * b[2]),
    "repeated": lambda x: (x, x, x),
}


def _some_columns(f: SimpleNamespace, at: SimpleNamespace) -> Any:
    q, slope = f.q, f.slope
    point, minus, square, add, add_times, repeated = at.point, at.minus, at.square, at.add, at.add_times, at.repeated

    @f.jit
    def some_columns(z, charges, p, own, first, last):
        """Sum over the columns [first, last), of which none is one of the rows."""
        inlined()
        n = len(charges)
        total, force = splat(_F(0)), repeated(splat(_F(0)))
        for begin in range(first, last, _TOGETHER):
            part, part_force = splat(_F(0)), repeated(splat(_F(0)))
            for j in range(begin, min(begin + _TOGETHER, last)):
                difference = minus(own, point(z, n, j))
                d2 = square(difference)
                part += charges[j] * q(d2, p, power)
                part_force = add_times(part_force, charges[j] * slope(d2, p, power), difference)
            total, force = total + part, add(force, part_force)
        return total, force

    return some_columns


def _among_themselves(f: SimpleNamespace, at: SimpleNamespace, d: int) -> Any:
    q, slope = f.q, f.slope
    point, minus, square, add_times, repeated = at.point, at.minus, at.square, at.add_times, at.repeated

    @f.jit
    def among_themselves(z, charges, p, slot, row, totals, forces):
        """Add what the 16 rows from ``slot`` on are to each other; a point is repeated to itself."""
        inlined()
        n, n_own = len(charges), len(totals)
        for v in range(LANES):
            total, force, own = _F(0), repeated(_F(0)), point(z, n, slot + v)
            for u in range(LANES):
                if u != v:
                    difference = minus(own, point(z, n, slot + u))
                    d2 = square(difference)
                    total += charges[slot + u] * q(d2, p, power)
                    force = add_times(force, charges[slot + u] * slope(d2, p, power), difference)
            totals[row + v] += total
            for c in range(d):
                forces[c * n_own + row + v] += force[c]

    return among_themselves


def _kernel(f: SimpleNamespace, at: SimpleNamespace, d: int) -> Any:
    some_columns, among_themselves = _some_columns(f, at), _among_themselves(f, at, d)
    rows, add = at.rows, at.add

    def kernel(first, last, start, z, charges, p, totals, forces):
        prefer_wide_vectors()
        n, n_own = len(charges), len(totals)
        for block in range(first, last):
            row = LANES * block
            slot = start + row
            own = rows(z, n, slot)
            total, force = some_columns(z, charges, p, own, 0, slot)
            more, more_force = some_columns(z, charges, p, own, slot + LANES, n)
            store(totals, row, total + more)
            force = add(force, more_force)
            for c in range(d):
                store(forces, c * n_own + row, force[c])
            among_themselves(z, charges, p, slot, row, totals, forces)

    return kernel
