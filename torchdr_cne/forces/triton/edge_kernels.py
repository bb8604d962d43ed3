"""Triton kernels over edges in slices of 32 rows, one row a thread, a few edges of each at a time.

The coordinates of a point, its row sum and its scale are adjacent in ``points`` (slots, width), so that the other end
of an edge is one sector of memory.
"""

import triton
import triton.language as tl

from torchdr_cne.forces.triton.tile_kernels import declared_parameters, squared


@triton.jit
def _rows_of_slice(rows, degrees, starts, LANES: tl.constexpr):
    """Return the rows of this program's slice, their degrees, where the slice begins and how wide it is."""
    s = tl.program_id(0)
    lane = s * LANES + tl.arange(0, LANES)
    begin, end = tl.load(starts + s), tl.load(starts + s + 1)
    return tl.load(rows + lane), tl.load(degrees + lane), begin, ((end - begin) // LANES).to(tl.int32)


@triton.jit
def _next_edges(columns, degree, begin, e, LANES: tl.constexpr, E: tl.constexpr):
    """Return which of the next E edges of each row there are, where they lie, and the slots that they lead to."""
    edge = e + tl.arange(0, E)
    use = edge[:, None] < degree[None, :]
    place = begin + (edge * LANES)[:, None] + tl.arange(0, LANES)[None, :]
    return use, place, tl.load(columns + place, mask=use, other=0)


@triton.jit
def _points_at(points, at, use, D: tl.constexpr, WIDTH: tl.constexpr):
    """Return three coordinates of the slots ``at``; those beyond D repeat the first and are not used."""
    x = tl.load(points + WIDTH * at, mask=use, other=0.0)
    y = x
    w = x
    if D > 1:
        y = tl.load(points + WIDTH * at + 1, mask=use, other=0.0)
    if D > 2:
        w = tl.load(points + WIDTH * at + 2, mask=use, other=0.0)
    return x, y, w


@triton.jit
def _weight(weights, place, use, WEIGHTED: tl.constexpr):
    weight = tl.load(weights)
    if WEIGHTED:
        weight = tl.load(weights + place, mask=use, other=0.0)
    return weight


@triton.jit
def _met(row, column, use, shifts, n_blocks, n_shifts, BLOCK: tl.constexpr):
    """Return whether the ends of edges meet as negatives in this step."""
    meeting = (row // BLOCK + column // BLOCK) % n_blocks
    met = meeting < 0
    for s in range(n_shifts):
        met = met | (meeting == tl.load(shifts + s))
    return use & met


@triton.jit
def edge_shares(
    points, rows, degrees, starts, columns, weights, draws, shifts, parameters, totals, scale,
    first_slot, n_blocks, n_shifts, per_shift,
    Q: tl.constexpr, POWER: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr,
    WEIGHTED: tl.constexpr, EXCLUDES: tl.constexpr, BLOCK: tl.constexpr, LANES: tl.constexpr, E: tl.constexpr,
):  # fmt: skip
    """Finish each row's normaliser S_i in ``totals``, and Σ_j w_ij / (q_ij + S_i), times its draws, in ``scale``."""
    row, degree, begin, width = _rows_of_slice(rows, degrees, starts, LANES)
    p = declared_parameters(parameters)
    slot = first_slot + row
    x, y, w = _points_at(points, slot, slot >= 0, D, WIDTH)
    draw, total = tl.load(draws + slot), tl.load(totals + slot)
    if EXCLUDES:
        unwanted = tl.zeros((E, LANES), tl.float32)
        for e in range(0, width, E):
            use, place, column = _next_edges(columns, degree, begin, e, LANES, E)
            xj, yj, wj = _points_at(points, column, use, D, WIDTH)
            q = Q(squared(x[None, :] - xj, y[None, :] - yj, w[None, :] - wj, D), p, POWER)
            unwanted += tl.where(_met(slot[None, :], column, use, shifts, n_blocks, n_shifts, BLOCK), q, 0.0)
        total -= tl.sum(unwanted, axis=0)
    total = total * draw * per_shift
    tl.store(totals + slot, total)
    share = tl.zeros((E, LANES), tl.float32)
    for e in range(0, width, E):
        use, place, column = _next_edges(columns, degree, begin, e, LANES, E)
        xj, yj, wj = _points_at(points, column, use, D, WIDTH)
        q = Q(squared(x[None, :] - xj, y[None, :] - yj, w[None, :] - wj, D), p, POWER)
        share += tl.where(use, _weight(weights, place, use, WEIGHTED) / (q + total[None, :]), 0.0)
    tl.store(scale + slot, tl.sum(share, axis=0) * draw)


@triton.jit
def _force(
    points, column, use, d2, p, weight, total, attraction, repulsion,
    F: tl.constexpr, F_REPULSIVE: tl.constexpr, Q: tl.constexpr, POWER: tl.constexpr,
    D: tl.constexpr, WIDTH: tl.constexpr, NORMALISED: tl.constexpr,
):  # fmt: skip
    """Return the derivative by d² of the losses of both directions of edges."""
    force = 2.0 * attraction * weight * F(d2, p, POWER)
    if NORMALISED:
        q = Q(d2, p, POWER)
        total_j = tl.load(points + WIDTH * column + D, mask=use, other=1.0)
        both = 1.0 / (q + total[None, :]) + 1.0 / (q + total_j)
        force += repulsion * weight * both * F_REPULSIVE(d2, p, POWER)
    return force


@triton.jit
def _finish(gradient, row, n_own, gx, gy, gw, longest, D: tl.constexpr, ADDS: tl.constexpr, SHORTENS: tl.constexpr):
    """Add the sums to the rows' gradients, and shorten these if they are longer than ``longest``."""
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


@triton.jit
def edge_forces(
    points, rows, degrees, starts, columns, weights, shifts, parameters, gradient, scalars,
    first_slot, n_own, n_blocks, n_shifts, attraction, repulsion, repulsion_of_met, longest,
    F: tl.constexpr, F_REPULSIVE: tl.constexpr, Q: tl.constexpr,
    F_SCALAR: tl.constexpr, F_REPULSIVE_SCALAR: tl.constexpr, POWER: tl.constexpr,
    D: tl.constexpr, WIDTH: tl.constexpr, WEIGHTED: tl.constexpr, NORMALISED: tl.constexpr, EXCLUDES: tl.constexpr,
    LEARNS: tl.constexpr, ADDS: tl.constexpr, SHORTENS: tl.constexpr,
    BLOCK: tl.constexpr, LANES: tl.constexpr, E: tl.constexpr,
):  # fmt: skip
    """Add the forces along each row's edges to its gradient, without those of negatives that are its neighbours."""
    row, degree, begin, width = _rows_of_slice(rows, degrees, starts, LANES)
    p = declared_parameters(parameters)
    slot = first_slot + row
    x, y, w = _points_at(points, slot, slot >= 0, D, WIDTH)
    total = tl.load(points + WIDTH * slot + (D if NORMALISED else 0))
    scale = tl.load(points + WIDTH * slot + (WIDTH - 1 if EXCLUDES else 0))
    gx = tl.zeros((E, LANES), tl.float32)
    gy, gw, learned = gx, gx, gx
    for e in range(0, width, E):
        use, place, column = _next_edges(columns, degree, begin, e, LANES, E)
        xj, yj, wj = _points_at(points, column, use, D, WIDTH)
        dx, dy, dw = x[None, :] - xj, y[None, :] - yj, w[None, :] - wj
        d2 = squared(dx, dy, dw, D)
        weight = _weight(weights, place, use, WEIGHTED)
        force = _force(
            points, column, use, d2, p, weight, total, attraction, repulsion,
            F, F_REPULSIVE, Q, POWER, D, WIDTH, NORMALISED,
        )  # fmt: skip
        if LEARNS:
            learned += tl.where(use, attraction * weight * F_SCALAR(d2, p, POWER), 0.0)
        if EXCLUDES:
            met = _met(slot[None, :], column, use, shifts, n_blocks, n_shifts, BLOCK)
            both = scale[None, :] + tl.load(points + WIDTH * column + WIDTH - 1, mask=use, other=0.0)
            force -= tl.where(met, repulsion_of_met * both * F_REPULSIVE(d2, p, POWER), 0.0)
            if LEARNS:
                of_met = repulsion_of_met * scale[None, :] * F_REPULSIVE_SCALAR(d2, p, POWER)
                learned -= tl.where(met, of_met, 0.0)
        force = tl.where(use, 2.0 * force, 0.0)
        gx += force * dx
        gy += force * dy
        gw += force * dw
    _finish(gradient, row, n_own, gx, gy, gw, longest, D, ADDS, SHORTENS)
    if LEARNS:
        before = tl.load(scalars + row, mask=(row >= 0) & ADDS, other=0.0)
        tl.store(scalars + row, before + tl.sum(learned, axis=0))
