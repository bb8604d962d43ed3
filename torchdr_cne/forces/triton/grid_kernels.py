"""Triton kernels that move charges to a grid and potentials back, by cubic B-splines of four nodes an axis.

Charges add up as 64-bit integers, whose sum does not depend on the order of the additions.
"""

import triton
import triton.language as tl


@triton.jit
def _weight(t, node: tl.constexpr):
    """Return the spline's weight of a node for a point at ``t`` in [0, 1) of its cell."""
    u = 1.0 - t
    if node == 0:
        value = u * u * u
    elif node == 1:
        value = 4.0 - 6.0 * t * t + 3.0 * t * t * t
    elif node == 2:
        value = 4.0 - 6.0 * u * u + 3.0 * u * u * u
    else:
        value = t * t * t
    return value * (1.0 / 6.0)


@triton.jit
def _slope(t, node: tl.constexpr):
    """Return the derivative of a node's weight by ``t``."""
    u = 1.0 - t
    if node == 0:
        value = -u * u
    elif node == 1:
        value = t * (3.0 * t - 4.0)
    elif node == 2:
        value = -u * (3.0 * u - 4.0)
    else:
        value = t * t
    return value * 0.5


@triton.jit
def _cell(z, low, per_cell, n_slots, at, use, axis: tl.constexpr):
    """Return the first node of each point on an axis, and the point's place behind it in cells."""
    place = (tl.load(z + axis * n_slots + at, mask=use, other=0.0) - tl.load(low + axis)) * tl.load(per_cell)
    first = tl.floor(place)
    return first.to(tl.int32), place - first


@triton.jit
def spread(z, charges, low, per_cell, unit, grid, n_slots, ny, nw, D: tl.constexpr, BLOCK: tl.constexpr):
    """Add each charge, in multiples of 1 / ``unit``, to the nodes around its point; the grid is (nx, ny, nw)."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    use = at < n_slots
    charge = tl.load(charges + at, mask=use, other=0.0)
    scaled = charge.to(tl.float64) * tl.load(unit)
    x, tx = _cell(z, low, per_cell, n_slots, at, use, 0)
    y, ty, w, tw = x, tx, x, tx
    if D > 1:
        y, ty = _cell(z, low, per_cell, n_slots, at, use, 1)
    if D > 2:
        w, tw = _cell(z, low, per_cell, n_slots, at, use, 2)
    use = use & (charge != 0)
    for i in tl.static_range(4):
        for j in tl.static_range(4 if D > 1 else 1):
            for k in tl.static_range(4 if D > 2 else 1):
                share = _weight(tx, i)
                node = x + i
                if D > 1:
                    share *= _weight(ty, j)
                    node = node * ny + y + j
                if D > 2:
                    share *= _weight(tw, k)
                    node = node * nw + w + k
                tl.atomic_add(grid + node, (share * scaled).to(tl.int64), mask=use, sem="relaxed")


@triton.jit
def collect(
    z, charges, low, per_cell, at_zero, potential, totals, forces, first_slot, n_own, n_slots, ny, nw,
    D: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the potential without each charge's own, and half its gradient, at the rank's own slots."""
    own = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    use = own < n_own
    at = first_slot + own
    x, tx = _cell(z, low, per_cell, n_slots, at, use, 0)
    y, ty, w, tw = x, tx, x, tx
    if D > 1:
        y, ty = _cell(z, low, per_cell, n_slots, at, use, 1)
    if D > 2:
        w, tw = _cell(z, low, per_cell, n_slots, at, use, 2)
    total = -tl.load(at_zero) * tl.load(charges + at, mask=use, other=0.0)
    gx = tl.zeros((BLOCK,), tl.float32)
    gy, gw = gx, gx
    for i in tl.static_range(4):
        for j in tl.static_range(4 if D > 1 else 1):
            for k in tl.static_range(4 if D > 2 else 1):
                wx, wy, ww = _weight(tx, i), 1.0, 1.0
                node = x + i
                if D > 1:
                    wy = _weight(ty, j)
                    node = node * ny + y + j
                if D > 2:
                    ww = _weight(tw, k)
                    node = node * nw + w + k
                value = tl.load(potential + node, mask=use, other=0.0)
                total += value * wx * wy * ww
                gx += value * _slope(tx, i) * wy * ww
                if D > 1:
                    gy += value * wx * _slope(ty, j) * ww
                if D > 2:
                    gw += value * wx * wy * _slope(tw, k)
    half = 0.5 * tl.load(per_cell)
    tl.store(totals + own, total, mask=use)
    tl.store(forces + own, half * gx, mask=use)
    if D > 1:
        tl.store(forces + n_own + own, half * gy, mask=use)
    if D > 2:
        tl.store(forces + 2 * n_own + own, half * gw, mask=use)
