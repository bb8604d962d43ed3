"""Triton kernels over tiles: the 64 rows of a block against the blocks that they meet in a step.

Each thread has one row, and takes the columns of a partner block a few at a time. Padding slots stand anywhere;
``occupied`` is 0 for them and takes their part out of every sum.
"""

import triton
import triton.language as tl


@triton.jit
def declared_parameters(parameters):
    """Return the parameters of the declared functions; those that no function reads are not loaded."""
    return (
        tl.load(parameters),
        tl.load(parameters + 1),
        tl.load(parameters + 2),
        tl.load(parameters + 3),
        tl.load(parameters + 4),
        tl.load(parameters + 5),
        tl.load(parameters + 6),
        tl.load(parameters + 7),
    )


@triton.jit
def _places(z, n_slots, at, D: tl.constexpr):
    """Return three coordinates of the slots ``at``; those beyond D repeat the first and are not used."""
    x = tl.load(z + at)
    y = x
    w = x
    if D > 1:
        y = tl.load(z + n_slots + at)
    if D > 2:
        w = tl.load(z + 2 * n_slots + at)
    return x, y, w


@triton.jit
def squared(dx, dy, dw, D: tl.constexpr):
    """Return the squared length of differences in D coordinates."""
    d2 = dx * dx
    if D > 1:
        d2 += dy * dy
    if D > 2:
        d2 += dw * dw
    return d2


@triton.jit
def _add_q(
    z, occupied, n_slots, row, column, x, y, w, p, total,
    Q: tl.constexpr, POWER: tl.constexpr, D: tl.constexpr, SELF: tl.constexpr,
):  # fmt: skip
    """Add q of each row with a few columns; with SELF these may be the row itself, which is left out."""
    xk, yk, wk = _places(z, n_slots, column, D)
    q = Q(squared(x[:, None] - xk[None, :], y[:, None] - yk[None, :], w[:, None] - wk[None, :], D), p, POWER)
    counts = tl.load(occupied + column)[None, :] > 0
    if SELF:
        counts = counts & (row[:, None] != column[None, :])
    return total + tl.where(counts, q, 0.0)


@triton.jit
def tile_totals(
    z, occupied, shifts, parameters, totals, n_slots, first, n_blocks, n_shifts,
    Q: tl.constexpr, POWER: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """Write Σ_k q_ik over the slots that each row meets."""
    block = first + tl.program_id(0)
    row = block * BLOCK + tl.arange(0, BLOCK)
    p = declared_parameters(parameters)
    x, y, w = _places(z, n_slots, row, D)
    total = tl.zeros((BLOCK, K), tl.float32)
    for s in range(n_shifts):
        partner = (tl.load(shifts + s) - block + n_blocks) % n_blocks
        column = partner * BLOCK + tl.arange(0, K)
        if partner == block:
            for c in range(0, tl.minimum(n_slots, BLOCK), K):
                total = _add_q(z, occupied, n_slots, row, column + c, x, y, w, p, total, Q, POWER, D, True)
        else:
            for c in tl.static_range(0, BLOCK, K):
                total = _add_q(z, occupied, n_slots, row, column + c, x, y, w, p, total, Q, POWER, D, False)
    tl.store(totals + row, tl.load(occupied + row) * tl.sum(total, axis=1))


@triton.jit
def _add_forces(
    z, occupied, scale, n_slots, row, column, x, y, w, s_i, p, gx, gy, gw, learned,
    F: tl.constexpr, F_SCALAR: tl.constexpr, POWER: tl.constexpr, D: tl.constexpr, LEARNS: tl.constexpr,
    SELF: tl.constexpr,
):  # fmt: skip
    """Add the forces of a few columns on each row; with SELF these may be the row itself, which is left out."""
    xk, yk, wk = _places(z, n_slots, column, D)
    m_k, s_k = tl.load(occupied + column), tl.load(scale + column)
    dx, dy, dw = x[:, None] - xk[None, :], y[:, None] - yk[None, :], w[:, None] - wk[None, :]
    d2 = squared(dx, dy, dw, D)
    pair_scale = s_i[:, None] * m_k[None, :] + s_k[None, :]
    is_other = m_k[None, :]
    if SELF:  # at distance 0 a force may be infinite
        is_self = row[:, None] == column[None, :]
        d2 = tl.where(is_self, 1.0, d2)
        is_other = tl.where(is_self, 0.0, is_other)
    f = pair_scale * F(d2, p, POWER)
    gx += f * dx
    if D > 1:
        gy += f * dy
    if D > 2:
        gw += f * dw
    if LEARNS:
        learned += is_other * F_SCALAR(d2, p, POWER)
    return gx, gy, gw, learned


@triton.jit
def tile_forces(
    z, occupied, scale, shifts, parameters, gradient, scalars,
    n_slots, n_own, first, n_blocks, n_shifts, repulsion,
    F: tl.constexpr, F_SCALAR: tl.constexpr, POWER: tl.constexpr,
    D: tl.constexpr, LEARNS: tl.constexpr, BLOCK: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """Write 2 · repulsion · Σ_k (s_i + s_k) f(d²_ik) (z_i − z_k), and the same sum of the learned scalar's s_i f."""
    block = first + tl.program_id(0)
    lane = tl.arange(0, BLOCK)
    row = block * BLOCK + lane
    p = declared_parameters(parameters)
    x, y, w = _places(z, n_slots, row, D)
    s_i = tl.load(scale + row)
    gx = tl.zeros((BLOCK, K), tl.float32)
    gy, gw, learned = gx, gx, gx
    for s in range(n_shifts):
        partner = (tl.load(shifts + s) - block + n_blocks) % n_blocks
        column = partner * BLOCK + tl.arange(0, K)
        if partner == block:
            for c in range(0, tl.minimum(n_slots, BLOCK), K):
                gx, gy, gw, learned = _add_forces(
                    z, occupied, scale, n_slots, row, column + c, x, y, w, s_i, p, gx, gy, gw, learned,
                    F, F_SCALAR, POWER, D, LEARNS, True,
                )  # fmt: skip
        else:
            for c in tl.static_range(0, BLOCK, K):
                gx, gy, gw, learned = _add_forces(
                    z, occupied, scale, n_slots, row, column + c, x, y, w, s_i, p, gx, gy, gw, learned,
                    F, F_SCALAR, POWER, D, LEARNS, False,
                )  # fmt: skip
    m_i = tl.load(occupied + row)
    own = gradient + tl.program_id(0) * BLOCK + lane
    tl.store(own, 2.0 * repulsion * m_i * tl.sum(gx, axis=1))
    if D > 1:
        tl.store(own + n_own, 2.0 * repulsion * m_i * tl.sum(gy, axis=1))
    if D > 2:
        tl.store(own + 2 * n_own, 2.0 * repulsion * m_i * tl.sum(gw, axis=1))
    if LEARNS:
        tl.store(scalars + tl.program_id(0) * BLOCK + lane, repulsion * s_i * tl.sum(learned, axis=1))
