"""Triton kernels over edges in slices of 32 rows, one row a thread, a few edges of each at a time.

The coordinates of a point, its row sum and its scale are adjacent in ``points`` (slots, width), so that the other end
of an edge is one sector of memory.
"""

import triton
import triton.language as tl

from torchdr_cne.forces.triton.tile_kernels import declared_parameters, squared


@triton.jit
def _ends(points, at, use, D: tl.constexpr, WIDTH: tl.constexpr):
    x = tl.load(points + WIDTH * at, mask=use, other=0.0)
    y = x
    w = x
    if D > 1:
        y = tl.load(points + WIDTH * at + 1, mask=use, other=0.0)
    if D > 2:
        w = tl.load(points + WIDTH * at + 2, mask=use, other=0.0)
    return x, y, w


@triton.jit
def _met(row, column, shifts, n_blocks, n_shifts, BLOCK: tl.constexpr):
    """Return whether the ends of edges meet as negatives in this step."""
    meeting = (row // BLOCK + column // BLOCK) % n_blocks
    met = meeting < 0
    for s in range(n_shifts):
        met = met | (meeting == tl.load(shifts + s))
    return met


@triton.jit
def edge_shares(
    points, rows, degrees, starts, columns, weights, draws, shifts, parameters, totals, scale,
    first_slot, n_blocks, n_shifts, per_shift,
    Q: tl.constexpr, POWER: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr,
    WEIGHTED: tl.constexpr, EXCLUDES: tl.constexpr, BLOCK: tl.constexpr, LANES: tl.constexpr, E: tl.constexpr,
):  # fmt: skip
    """Finish each row's normaliser S_i in ``totals``, and write Σ_j w_ij / (q_ij + S_i), times its draws, as its scale."""
    lane = tl.program_id(0) * LANES + tl.arange(0, LANES)
    row, degree = tl.load(rows + lane), tl.load(degrees + lane)
    begin, end = tl.load(starts + tl.program_id(0)), tl.load(starts + tl.program_id(0) + 1)
    width = ((end - begin) // LANES).to(tl.int32)
    p = declared_parameters(parameters)
    at_row = first_slot + row
    x, y, w = _ends(points, at_row, lane >= 0, D, WIDTH)
    draw = tl.load(draws + at_row)
    total = tl.load(totals + at_row)
    if EXCLUDES:
        met_sum = tl.zeros((E, LANES), tl.float32)
        for e in range(0, width, E):
            edge = e + tl.arange(0, E)
            use = edge[:, None] < degree[None, :]
            place = begin + (edge * LANES)[:, None] + tl.arange(0, LANES)[None, :]
            column = tl.load(columns + place, mask=use, other=0)
            xj, yj, wj = _ends(points, column, use, D, WIDTH)
            d2 = squared(x[None, :] - xj, y[None, :] - yj, w[None, :] - wj, D)
            met = use & _met(at_row[None, :], column, shifts, n_blocks, n_shifts, BLOCK)
            met_sum += tl.where(met, Q(d2, p, POWER), 0.0)
        total -= tl.sum(met_sum, axis=0)
    total = total * draw * per_shift
    tl.store(totals + at_row, total)
    share = tl.zeros((E, LANES), tl.float32)
    for e in range(0, width, E):
        edge = e + tl.arange(0, E)
        use = edge[:, None] < degree[None, :]
        place = begin + (edge * LANES)[:, None] + tl.arange(0, LANES)[None, :]
        column = tl.load(columns + place, mask=use, other=0)
        xj, yj, wj = _ends(points, column, use, D, WIDTH)
        d2 = squared(x[None, :] - xj, y[None, :] - yj, w[None, :] - wj, D)
        weight = tl.load(weights)
        if WEIGHTED:
            weight = tl.load(weights + place, mask=use, other=0.0)
        share += tl.where(use, weight / (Q(d2, p, POWER) + total[None, :]), 0.0)
    tl.store(scale + at_row, tl.sum(share, axis=0) * draw)


@triton.jit
def edge_forces(
    points, rows, degrees, starts, columns, weights, shifts, parameters, gradient, scalars,
    first_slot, n_own, n_blocks, n_shifts, attraction, repulsion, repulsion_of_met, longest,
    F: tl.constexpr, F_REPULSIVE: tl.constexpr, Q: tl.constexpr,
    F_SCALAR: tl.constexpr, F_REPULSIVE_SCALAR: tl.constexpr, POWER: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr, WEIGHTED: tl.constexpr, NORMALISED: tl.constexpr,
    EXCLUDES: tl.constexpr, LEARNS: tl.constexpr, ADDS: tl.constexpr, SHORTENS: tl.constexpr,
    BLOCK: tl.constexpr, LANES: tl.constexpr, E: tl.constexpr,
):  # fmt: skip
    """Add the forces along each row's edges to its gradient, and shorten that if it is longer than ``longest``."""
    lane = tl.program_id(0) * LANES + tl.arange(0, LANES)
    row, degree = tl.load(rows + lane), tl.load(degrees + lane)
    begin, end = tl.load(starts + tl.program_id(0)), tl.load(starts + tl.program_id(0) + 1)
    width = ((end - begin) // LANES).to(tl.int32)
    p = declared_parameters(parameters)
    at_row = first_slot + row
    x, y, w = _ends(points, at_row, lane >= 0, D, WIDTH)
    total = x
    scale = x
    if NORMALISED:
        total = tl.load(points + WIDTH * at_row + D)
    if EXCLUDES:
        scale = tl.load(points + WIDTH * at_row + WIDTH - 1)
    gx = tl.zeros((E, LANES), tl.float32)
    gy, gw, learned = gx, gx, gx
    for e in range(0, width, E):
        edge = e + tl.arange(0, E)
        use = edge[:, None] < degree[None, :]
        place = begin + (edge * LANES)[:, None] + tl.arange(0, LANES)[None, :]
        column = tl.load(columns + place, mask=use, other=0)
        xj, yj, wj = _ends(points, column, use, D, WIDTH)
        dx, dy, dw = x[None, :] - xj, y[None, :] - yj, w[None, :] - wj
        d2 = squared(dx, dy, dw, D)
        weight = tl.load(weights)
        if WEIGHTED:
            weight = tl.load(weights + place, mask=use, other=0.0)
        force = 2.0 * attraction * weight * F(d2, p, POWER)
        if NORMALISED:
            q = Q(d2, p, POWER)
            total_j = tl.load(points + WIDTH * column + D, mask=use, other=1.0)
            both = 1.0 / (q + total[None, :]) + 1.0 / (q + total_j)
            force += repulsion * weight * both * F_REPULSIVE(d2, p, POWER)
        met = use
        if EXCLUDES:
            met = use & _met(at_row[None, :], column, shifts, n_blocks, n_shifts, BLOCK)
            both = scale[None, :] + tl.load(points + WIDTH * column + WIDTH - 1, mask=use, other=0.0)
            force -= tl.where(met, repulsion_of_met * both * F_REPULSIVE(d2, p, POWER), 0.0)
        force = tl.where(use, 2.0 * force, 0.0)
        gx += force * dx
        if D > 1:
            gy += force * dy
        if D > 2:
            gw += force * dw
        if LEARNS:
            value = attraction * weight * F_SCALAR(d2, p, POWER)
            if EXCLUDES:
                of_met = repulsion_of_met * scale[None, :] * F_REPULSIVE_SCALAR(d2, p, POWER)
                value -= tl.where(met, of_met, 0.0)
            learned += tl.where(use, value, 0.0)
    fx, fy, fw = tl.sum(gx, axis=0), tl.sum(gy, axis=0), tl.sum(gw, axis=0)
    own = gradient + row
    if ADDS:
        fx += tl.load(own)
        if D > 1:
            fy += tl.load(own + n_own)
        if D > 2:
            fw += tl.load(own + 2 * n_own)
    if SHORTENS:
        shorter = longest * tl.rsqrt(tl.maximum(squared(fx, fy, fw, D), longest * longest))
        fx, fy, fw = fx * shorter, fy * shorter, fw * shorter
    tl.store(own, fx)
    if D > 1:
        tl.store(own + n_own, fy)
    if D > 2:
        tl.store(own + 2 * n_own, fw)
    if LEARNS:
        of_row = tl.sum(learned, axis=0)
        if ADDS:
            of_row += tl.load(scalars + row)
        tl.store(scalars + row, of_row)
