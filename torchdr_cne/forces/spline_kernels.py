"""Cubic B-splines between points of the plane and a grid (Numba); bits do not depend on how the work is split."""

import numpy as np

from torchdr_cne.kernel_cache import cached_njit

_F = np.float32
_THIRD, _SIXTH, _HALF = _F(1 / 3), _F(1 / 6), _F(0.5)
_jit = cached_njit(nogil=True, fastmath=True, error_model="numpy")


@_jit
def _weights(t):
    """Weights of the four nodes around a point a share ``t`` of a cell behind the second of them."""
    u = _F(1) - t
    t2, u2 = t * t, u * u
    return (
        u2 * u * _SIXTH,
        (_F(4) - _F(6) * t2 + _F(3) * t2 * t) * _SIXTH,
        (_F(4) - _F(6) * u2 + _F(3) * u2 * u) * _SIXTH,
        t2 * t * _SIXTH,
    )


@_jit
def _slopes(t):
    """Derivatives of the weights."""
    u = _F(1) - t
    return (
        -u * u * _HALF,
        t * (_F(1.5) * t - _F(2)),
        -u * (_F(1.5) * u - _F(2)),
        t * t * _HALF,
    )


@_jit
def sort_by_row(z, origin, per_cell, n_rows, rows, starts, order):
    """Write each point's first grid row, where each row's points begin, and the points in order of their rows."""
    n = z.shape[1]
    starts[:] = 0
    for k in range(n):
        row = np.int32((z[0, k] - origin) * per_cell)
        rows[k] = row
        starts[row + 1] += 1
    for row in range(n_rows):
        starts[row + 1] += starts[row]
    place = starts[:-1].copy()
    for k in range(n):
        order[place[rows[k]]] = k
        place[rows[k]] += 1


@_jit
def spread(first, last, z, charges, origin, per_cell, starts, order, grid):
    """Fill the grid's rows [first, last) with the points' charges."""
    grid[first:last] = _F(0)
    for own in range(max(first - 3, 0), min(last, len(starts) - 1)):
        for at in range(starts[own], starts[own + 1]):
            k = order[at]
            x, y = (z[0, k] - origin[0]) * per_cell, (z[1, k] - origin[1]) * per_cell
            column = np.int32(y)
            across, along = _weights(x - _F(own)), _weights(y - _F(column))
            for a in range(max(0, first - own), min(4, last - own)):
                share = charges[k] * across[a]
                for b in range(4):
                    grid[own + a, column + b] += share * along[b]


@_jit
def collect(first, last, z, charges, origin, per_cell, starts, order, own_first, q_at_zero, grid, totals, forces):
    """Write a grid's value, less ``q_at_zero`` times the charge, and half its gradient, at the points of some rows."""
    n_own = len(totals)
    for row in range(first, last):
        for at in range(starts[row], starts[row + 1]):
            k = order[at]
            own = k - own_first
            if own < 0 or own >= n_own:
                continue
            x, y = (z[0, k] - origin[0]) * per_cell, (z[1, k] - origin[1]) * per_cell
            column = np.int32(y)
            across, along = _weights(x - _F(row)), _weights(y - _F(column))
            steep, steep_along = _slopes(x - _F(row)), _slopes(y - _F(column))
            total, by_x, by_y = _F(0), _F(0), _F(0)
            for a in range(4):
                value, slope = _F(0), _F(0)
                for b in range(4):
                    value += along[b] * grid[row + a, column + b]
                    slope += steep_along[b] * grid[row + a, column + b]
                total += across[a] * value
                by_x += steep[a] * value
                by_y += across[a] * slope
            totals[own] = total - q_at_zero * charges[k]
            forces[0, own] = by_x * per_cell * _HALF
            forces[1, own] = by_y * per_cell * _HALF
