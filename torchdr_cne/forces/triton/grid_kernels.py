"""Triton kernels that move charges to a grid and potentials back, by cubic B-splines of four nodes an axis.

Charges add up as 64-bit integers, whose sum does not depend on the order of the additions.
"""

import triton
import triton.language as tl

from torchdr_cne.forces.triton.tile_kernels import declared_parameters


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
def measure(low, high, charge, scalars, n_x, n_y, n_w, step, units, margin, fewest_steps, narrow, D: tl.constexpr):
    """Write the grid's 1/step, its squared step, the units of a charge, and whether the layout is narrow."""
    span = tl.load(high) - tl.load(low)
    widest, needed = span, span / (n_x - margin)
    if D > 1:
        span = tl.load(high + 1) - tl.load(low + 1)
        widest, needed = tl.maximum(widest, span), tl.maximum(needed, span / (n_y - margin))
    if D > 2:
        span = tl.load(high + 2) - tl.load(low + 2)
        widest, needed = tl.maximum(widest, span), tl.maximum(needed, span / (n_w - margin))
    chosen = tl.maximum(tl.maximum(tl.minimum(step, widest / fewest_steps), needed), 1e-30).to(tl.float64)
    tl.store(scalars, 1.0 / chosen)
    tl.store(scalars + 1, chosen * chosen)
    tl.store(scalars + 2, units / tl.load(charge).to(tl.float64))
    tl.store(scalars + 3, tl.where(widest < narrow, 1.0, 0.0).to(tl.float64))


@triton.jit
def _nodes_of_program(n_y, n_last, D: tl.constexpr, BLOCK: tl.constexpr):
    """Return this program's place on the first axes of a grid, and a block of places on its last axis of ``n_last``."""
    blocks = tl.cdiv(n_last, BLOCK)
    row = tl.program_id(0) // blocks
    last = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    x, y = row, row * 0
    if D > 2:
        y = row % n_y
        x = row // n_y
    return x, y, last


@triton.jit
def to_padded(counts, scalars, grid, n_x, n_y, n_w, D: tl.constexpr, BLOCK: tl.constexpr):
    """Write the charges as numbers on a grid of twice as many nodes an axis, which are 0 beyond the first half."""
    n_last = n_w if D == 3 else (n_y if D == 2 else n_x)
    x, y, last = _nodes_of_program(2 * n_y, 2 * n_last, D, BLOCK)
    place, padded, within = last.to(tl.int64), last.to(tl.int64), last < n_x
    if D == 2:
        place, padded, within = x * n_y + place, 2 * x * n_y + padded, (x < n_x) & (last < n_y)
    if D == 3:
        place, padded = (x * n_y + y) * n_w + place, (2 * x * n_y + y) * 2 * n_w + padded
        within = (x < n_x) & (y < n_y) & (last < n_w)
    value = tl.load(counts + place, mask=within, other=0).to(tl.float64) / tl.load(scalars + 2)
    tl.store(grid + padded, value.to(tl.float32), mask=last < 2 * n_last)


@triton.jit
def _squared_steps(at, n):
    """Return the squared number of steps from node 0 to a node of an axis of ``n``, or around its end."""
    steps = tl.minimum(at, n - at).to(tl.float64)
    return steps * steps


@triton.jit
def q_of_grid(
    grid, scalars, at_zero, parameters, n_x, n_y, n_w,
    Q: tl.constexpr, POWER: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write q between node 0 and each node of the padded grid, less q(0) in a narrow layout, and q(0) itself."""
    n_last = n_w if D == 3 else (n_y if D == 2 else n_x)
    x, y, last = _nodes_of_program(2 * n_y, 2 * n_last, D, BLOCK)
    padded, d2 = last.to(tl.int64), _squared_steps(last, 2 * n_x)
    if D == 2:
        padded, d2 = 2 * x * n_y + padded, _squared_steps(x, 2 * n_x) + _squared_steps(last, 2 * n_y)
    if D == 3:
        padded = (2 * x * n_y + y) * 2 * n_w + padded
        d2 = _squared_steps(x, 2 * n_x) + _squared_steps(y, 2 * n_y) + _squared_steps(last, 2 * n_w)
    p = declared_parameters(parameters)
    of_zero = Q(d2 * 0.0, p, POWER)
    q = Q(d2 * tl.load(scalars + 1), p, POWER) - tl.load(scalars + 3) * of_zero
    tl.store(grid + padded, q.to(tl.float32), mask=last < 2 * n_last)
    tl.store(at_zero + last * 0, of_zero, mask=(last == 0) & (x + y == 0))


@triton.jit
def convolve(spectrum, kernel, undoing_x, undoing_y, undoing_w, n_y, n_last, D: tl.constexpr, BLOCK: tl.constexpr):
    """Multiply a transform by the real part of the kernel's and by what undoes the splines of each axis."""
    x, y, last = _nodes_of_program(n_y, n_last, D, BLOCK)
    use = last < n_last
    row = x * n_y + y if D == 3 else x
    at = 2 * (row.to(tl.int64) * n_last + last)
    if D == 1:
        factor = tl.load(undoing_x + last, mask=use, other=0.0)
    if D == 2:
        factor = tl.load(undoing_x + x) * tl.load(undoing_y + last, mask=use, other=0.0)
    if D == 3:
        factor = tl.load(undoing_x + x) * tl.load(undoing_y + y) * tl.load(undoing_w + last, mask=use, other=0.0)
    factor *= tl.load(kernel + at, mask=use, other=0.0)
    real, imaginary = tl.load(spectrum + at, mask=use, other=0.0), tl.load(spectrum + at + 1, mask=use, other=0.0)
    tl.store(spectrum + at, real * factor, mask=use)
    tl.store(spectrum + at + 1, imaginary * factor, mask=use)


@triton.jit
def _cell(z, low, scalars, n_slots, at, use, n_nodes, axis: tl.constexpr):
    """Return the first node of each point on an axis, and the point's place behind it in cells.

    Positions that are not finite have places that are not, and nodes that are on the grid.
    """
    per_cell = tl.load(scalars).to(tl.float32)
    place = (tl.load(z + axis * n_slots + at, mask=use, other=0.0) - tl.load(low + axis)) * per_cell
    first = tl.minimum(tl.maximum(tl.floor(place), 0.0), n_nodes - 4.0)
    return first.to(tl.int32), place - first


@triton.jit
def _cells(z, low, scalars, n_slots, at, use, n_x, n_y, n_w, D: tl.constexpr):
    """Return the first node of each point on all axes, and its places behind them; those beyond D are not used."""
    x, tx = _cell(z, low, scalars, n_slots, at, use, n_x, 0)
    y, ty, w, tw = x, tx, x, tx
    if D > 1:
        y, ty = _cell(z, low, scalars, n_slots, at, use, n_y, 1)
    if D > 2:
        w, tw = _cell(z, low, scalars, n_slots, at, use, n_w, 2)
    return x, y, w, tx, ty, tw


@triton.jit
def spread(z, charges, low, scalars, counts, n_slots, n_x, n_y, n_w, D: tl.constexpr, BLOCK: tl.constexpr):
    """Add the units of each charge to the nodes around its point, on a grid (n_x, n_y, n_w)."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    use = at < n_slots
    charge = tl.load(charges + at, mask=use, other=0.0)
    scaled = charge.to(tl.float64) * tl.load(scalars + 2)
    x, y, w, tx, ty, tw = _cells(z, low, scalars, n_slots, at, use, n_x, n_y, n_w, D)
    use = use & (charge != 0)
    for i in tl.static_range(4):
        for j in tl.static_range(4 if D > 1 else 1):
            for k in tl.static_range(4 if D > 2 else 1):
                share = _weight(tx, i)
                node = x + i
                if D > 1:
                    share *= _weight(ty, j)
                    node = node * n_y + y + j
                if D > 2:
                    share *= _weight(tw, k)
                    node = node * n_w + w + k
                tl.atomic_add(counts + node, (share * scaled).to(tl.int64), mask=use, sem="relaxed")


@triton.jit
def collect(
    z, charges, low, scalars, offset, at_zero, potential, totals, forces, first_slot, n_own, n_slots, n_x, n_y, n_w,
    D: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the potential, plus an offset, without each charge's own, and half its gradient, at the rank's own slots.

    The potential lies on a grid of twice as many nodes an axis, of which the first half counts.
    """
    own = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    use = own < n_own
    at = first_slot + own
    x, y, w, tx, ty, tw = _cells(z, low, scalars, n_slots, at, use, n_x, n_y, n_w, D)
    own_charge = tl.load(charges + at, mask=use, other=0.0)
    total = (tl.load(offset) - tl.load(at_zero) * own_charge).to(tl.float32)
    gx = tl.zeros((BLOCK,), tl.float32)
    gy, gw = gx, gx
    for i in tl.static_range(4):
        for j in tl.static_range(4 if D > 1 else 1):
            for k in tl.static_range(4 if D > 2 else 1):
                wx, wy, ww = _weight(tx, i), 1.0, 1.0
                node = x + i
                if D > 1:
                    wy = _weight(ty, j)
                    node = node * (2 * n_y) + y + j
                if D > 2:
                    ww = _weight(tw, k)
                    node = node * (2 * n_w) + w + k
                value = tl.load(potential + node, mask=use, other=0.0)
                total += value * wx * wy * ww
                gx += value * _slope(tx, i) * wy * ww
                if D > 1:
                    gy += value * wx * _slope(ty, j) * ww
                if D > 2:
                    gw += value * wx * wy * _slope(tw, k)
    half = (0.5 * tl.load(scalars)).to(tl.float32)
    tl.store(totals + own, total, mask=use)
    tl.store(forces + own, half * gx, mask=use)
    if D > 1:
        tl.store(forces + n_own + own, half * gy, mask=use)
    if D > 2:
        tl.store(forces + 2 * n_own + own, half * gw, mask=use)
