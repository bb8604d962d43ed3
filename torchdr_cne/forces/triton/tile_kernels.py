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
def tile_totals(
    z, occupied, shifts, parameters, totals, n_slots, first, n_blocks, n_shifts,
    Q: tl.constexpr, POWER: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr, K: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    """Write Σ_k q_ik over the slots that each row meets."""
    block = first + tl.program_id(0)
    row = block * BLOCK + tl.arange(0, BLOCK)
    p = declared_parameters(parameters)
    x, y, w = _places(z, n_slots, row, D)
    total = tl.zeros((BLOCK, K), tl.float32)
    for s in range(n_shifts):
        partner = (tl.load(shifts + s) - block + n_blocks) % n_blocks
        for c in tl.range(0, BLOCK, K, loop_unroll_factor=UNROLL):
            column = partner * BLOCK + c + tl.arange(0, K)
            xk, yk, wk = _places(z, n_slots, column, D)
            d2 = squared(x[:, None] - xk[None, :], y[:, None] - yk[None, :], w[:, None] - wk[None, :], D)
            others = (tl.load(occupied + column)[None, :] > 0) & (row[:, None] != column[None, :])
            total += tl.where(others, Q(d2, p, POWER), 0.0)
    tl.store(totals + row, tl.load(occupied + row) * tl.sum(total, axis=1))


@triton.jit
def tile_forces(
    z, occupied, scale, shifts, parameters, gradient, scalars,
    n_slots, n_own, first, n_blocks, n_shifts, repulsion,
    F: tl.constexpr, F_SCALAR: tl.constexpr, POWER: tl.constexpr,
    D: tl.constexpr, LEARNS: tl.constexpr, GUARDS: tl.constexpr,
    BLOCK: tl.constexpr, K: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    """Write 2 · repulsion · Σ_k (s_i + s_k) f(d²_ik) (z_i − z_k), and the same sum of the learned scalar's s_i f.

    GUARDS tells that f may be infinite at 0, where a row meets itself, or padding meets padding.
    """
    block = first + tl.program_id(0)
    lane = tl.arange(0, BLOCK)
    row = block * BLOCK + lane
    p = declared_parameters(parameters)
    x, y, w = _places(z, n_slots, row, D)
    m_i, s_i = tl.load(occupied + row), tl.load(scale + row)
    gx = tl.zeros((BLOCK, K), tl.float32)
    gy, gw, learned = gx, gx, gx
    for s in range(n_shifts):
        partner = (tl.load(shifts + s) - block + n_blocks) % n_blocks
        for c in tl.range(0, BLOCK, K, loop_unroll_factor=UNROLL):
            column = partner * BLOCK + c + tl.arange(0, K)
            xk, yk, wk = _places(z, n_slots, column, D)
            m_k, s_k = tl.load(occupied + column), tl.load(scale + column)
            dx, dy, dw = x[:, None] - xk[None, :], y[:, None] - yk[None, :], w[:, None] - wk[None, :]
            d2 = squared(dx, dy, dw, D)
            f = (s_i[:, None] * m_k[None, :] + s_k[None, :]) * F(d2, p, POWER)
            if GUARDS:
                others = (m_k[None, :] > 0) & (row[:, None] != column[None, :])
                f = tl.where(others & (m_i[:, None] > 0), f, 0.0)
            gx += f * dx
            gy += f * dy
            gw += f * dw
            if LEARNS:
                met = tl.where(row[:, None] == column[None, :], 0.0, m_k[None, :])
                learned += met * F_SCALAR(d2, p, POWER)
    own = gradient + tl.program_id(0) * BLOCK + lane
    factor = 2.0 * repulsion * m_i
    tl.store(own, factor * tl.sum(gx, axis=1))
    if D > 1:
        tl.store(own + n_own, factor * tl.sum(gy, axis=1))
    if D > 2:
        tl.store(own + 2 * n_own, factor * tl.sum(gw, axis=1))
    if LEARNS:
        tl.store(scalars + tl.program_id(0) * BLOCK + lane, repulsion * s_i * tl.sum(learned, axis=1))
