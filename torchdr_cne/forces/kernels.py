"""Compiled row-owned forces (Numba): one set of kernels a method and dimension.

Every kernel works on row blocks [first, last) and writes only their rows, so any split over threads gives the same
bits. Within a row the tiles come in the order of the shifts and the edges in the order of the columns.
The inner loops run over the 64 contiguous partners of a row without a branch; that is what vectorises.
"""

from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from numba import njit

from torchdr_cne.forces.caching import cache_by_content
from torchdr_cne.forces.declaration import PairForces
from torchdr_cne.forces.numerics import JIT_OPTIONS, power, prefer_wide_vectors, single_precision
from torchdr_cne.sampling import BLOCK_SIZE

_F = np.float32


@njit(**JIT_OPTIONS)
def _nothing(d2, p, power):  # type: ignore[no-untyped-def]
    return _F(0)


@lru_cache(maxsize=64)
def compiled_kernels(forces: PairForces, n_components: int) -> SimpleNamespace:
    """Return the kernels ``totals_and_shares`` and ``forces`` for a declaration."""
    declared = {
        name: _nothing if function is None else njit(**JIT_OPTIONS)(single_precision(function))
        for name, function in vars(forces).items()
    }
    normalised = forces.normaliser is not None
    flat = n_components == 2
    rows = _row_kernels_2d(**declared) if flat else _row_kernels(**declared)
    kernels = SimpleNamespace(
        totals_and_shares=_totals_and_shares(rows, declared["normaliser"]) if normalised else None,
        forces=_forces(rows, declared, normalised, forces.attractive_scalar is not None),
    )
    content = (forces, n_components)
    for kernel in vars(kernels).values():
        if kernel is not None:
            cache_by_content(kernel, content)
    return kernels


def _row_kernels_2d(normaliser: Any, repulsive: Any, repulsive_scalar: Any, **_: Any) -> SimpleNamespace:
    """Row sums over one block of partners in two dimensions: everything stays in registers."""

    @njit(**JIT_OPTIONS)
    def total(z, i, block, start, stop, mask, p):  # type: ignore[no-untyped-def]
        x, y = z[0, i], z[1, i]
        xs, ys, present = z[0, block : block + 64], z[1, block : block + 64], mask[block : block + 64]
        result = _F(0)
        for k in range(start, stop):
            dx, dy = x - xs[k], y - ys[k]
            result += present[k] * normaliser(dx * dx + dy * dy, p, power)
        return result

    @njit(**JIT_OPTIONS)
    def scalar(z, i, block, start, stop, mask, p):  # type: ignore[no-untyped-def]
        x, y = z[0, i], z[1, i]
        xs, ys, present = z[0, block : block + 64], z[1, block : block + 64], mask[block : block + 64]
        result = _F(0)
        for k in range(start, stop):
            dx, dy = x - xs[k], y - ys[k]
            result += present[k] * repulsive_scalar(dx * dx + dy * dy, p, power)
        return result

    @njit(**JIT_OPTIONS)
    def force(z, i, block, start, stop, mask, scale, p, factor, gradient, buffer):  # type: ignore[no-untyped-def]
        x, y, own = z[0, i], z[1, i], scale[i]
        xs, ys, present = z[0, block : block + 64], z[1, block : block + 64], mask[block : block + 64]
        theirs = scale[block : block + 64]
        gx, gy = _F(0), _F(0)
        for k in range(start, stop):
            dx, dy = x - xs[k], y - ys[k]
            c = (own * present[k] + theirs[k]) * repulsive(dx * dx + dy * dy, p, power)
            gx += c * dx
            gy += c * dy
        gradient[0, i] += factor * gx
        gradient[1, i] += factor * gy

    return SimpleNamespace(total=total, scalar=scalar, force=force)


def _row_kernels(normaliser: Any, repulsive: Any, repulsive_scalar: Any, **_: Any) -> SimpleNamespace:
    """Row sums over one block of partners in any dimension, through a buffer of 64 squared distances."""

    @njit(**JIT_OPTIONS)
    def squared_distances(z, i, block, buffer):  # type: ignore[no-untyped-def]
        buffer[:] = _F(0)
        for c in range(z.shape[0]):
            x, xs = z[c, i], z[c, block : block + 64]
            for k in range(64):
                buffer[k] += (x - xs[k]) * (x - xs[k])

    @njit(**JIT_OPTIONS)
    def total(z, i, block, start, stop, mask, p):  # type: ignore[no-untyped-def]
        buffer = np.empty(64, _F)
        squared_distances(z, i, block, buffer)
        result = _F(0)
        for k in range(start, stop):
            result += mask[block + k] * normaliser(buffer[k], p, power)
        return result

    @njit(**JIT_OPTIONS)
    def scalar(z, i, block, start, stop, mask, p):  # type: ignore[no-untyped-def]
        buffer = np.empty(64, _F)
        squared_distances(z, i, block, buffer)
        result = _F(0)
        for k in range(start, stop):
            result += mask[block + k] * repulsive_scalar(buffer[k], p, power)
        return result

    @njit(**JIT_OPTIONS)
    def force(z, i, block, start, stop, mask, scale, p, factor, gradient, buffer):  # type: ignore[no-untyped-def]
        squared_distances(z, i, block, buffer)
        present, theirs = mask[block : block + 64], scale[block : block + 64]
        for k in range(start, stop):
            buffer[k] = (scale[i] * present[k] + theirs[k]) * repulsive(buffer[k], p, power)
        for c in range(z.shape[0]):
            x, xs = z[c, i], z[c, block : block + 64]
            result = _F(0)
            for k in range(start, stop):
                result += buffer[k] * (x - xs[k])
            gradient[c, i] += factor * result

    return SimpleNamespace(total=total, scalar=scalar, force=force)


@njit(**JIT_OPTIONS)
def _edge_distance(z, i, j):  # type: ignore[no-untyped-def]
    d2 = _F(0)
    for c in range(z.shape[0]):
        d2 += (z[c, i] - z[c, j]) * (z[c, i] - z[c, j])
    return d2


def _totals_and_shares(rows: SimpleNamespace, normaliser: Any) -> Any:
    """First pass of normalised losses: S_i over the negatives, then Σ_j w_ij / (q_ij + S_i)."""
    row_total = rows.total

    @njit(**JIT_OPTIONS)
    def totals_and_shares(  # type: ignore[no-untyped-def]
        first, last, z, shifts, mask, sizes, draw_weights, indptr, indices, weights, p, met, totals, shares
    ):
        prefer_wide_vectors()
        n_blocks = len(sizes)
        for a in range(first, last):
            for t in range(sizes[a]):
                i = a * BLOCK_SIZE + t
                total = _F(0)
                for s in shifts:
                    b = (s - a) % n_blocks
                    if b != a:
                        total += row_total(z, i, b * BLOCK_SIZE, 0, BLOCK_SIZE, mask, p)
                    else:
                        total += row_total(z, i, b * BLOCK_SIZE, 0, t, mask, p)
                        total += row_total(z, i, b * BLOCK_SIZE, t + 1, sizes[a], mask, p)
                if len(met):
                    for e in range(indptr[i], indptr[i + 1]):
                        j = indices[e]
                        if met[(a + j // BLOCK_SIZE) % n_blocks]:
                            total -= normaliser(_edge_distance(z, i, j), p, power)
                total *= draw_weights[i]
                share = _F(0)
                for e in range(indptr[i], indptr[i + 1]):
                    share += weights[e] / (normaliser(_edge_distance(z, i, indices[e]), p, power) + total)
                totals[i] = total
                shares[i] = share

    return totals_and_shares


def _forces(rows: SimpleNamespace, declared: dict[str, Any], normalised: bool, learns: bool) -> Any:
    """Forces of tiles and of edges, and the learned scalar's derivative summed a block."""
    row_force, row_scalar = rows.force, rows.scalar
    attractive, repulsive, normaliser = (declared[k] for k in ("attractive", "repulsive", "normaliser"))
    attractive_scalar, repulsive_scalar = declared["attractive_scalar"], declared["repulsive_scalar"]

    @njit(**JIT_OPTIONS)
    def forces(  # type: ignore[no-untyped-def]
        first, last, z, shifts, mask, sizes, scale, indptr, indices, weights, p,
        met, totals, attraction, repulsion, gradient, scalars,
    ):  # fmt: skip
        prefer_wide_vectors()
        n_blocks = len(sizes)
        buffer = np.empty(BLOCK_SIZE, _F)
        two = _F(2)
        for a in range(first, last):
            block_scalar = 0.0
            for t in range(BLOCK_SIZE):
                for c in range(z.shape[0]):
                    gradient[c, a * BLOCK_SIZE + t] = _F(0)
            for s in shifts:
                b = (s - a) % n_blocks
                block = b * BLOCK_SIZE
                for t in range(sizes[a]):
                    i = a * BLOCK_SIZE + t
                    if b != a:
                        row_force(z, i, block, 0, BLOCK_SIZE, mask, scale, p, two * repulsion, gradient, buffer)
                        if learns:
                            block_scalar += repulsion * scale[i] * row_scalar(z, i, block, 0, BLOCK_SIZE, mask, p)
                    else:
                        for start, stop in ((0, t), (t + 1, sizes[a])):
                            row_force(z, i, block, start, stop, mask, scale, p, two * repulsion, gradient, buffer)
                            if learns:
                                block_scalar += repulsion * scale[i] * row_scalar(z, i, block, start, stop, mask, p)
            for t in range(sizes[a]):
                i = a * BLOCK_SIZE + t
                for e in range(indptr[i], indptr[i + 1]):
                    j = indices[e]
                    d2 = _edge_distance(z, i, j)
                    coefficient = two * attraction * weights[e] * attractive(d2, p, power)
                    if normalised:
                        q = normaliser(d2, p, power)
                        both = _F(1) / (q + totals[i]) + _F(1) / (q + totals[j])
                        coefficient += repulsion * weights[e] * both * repulsive(d2, p, power)
                    if learns:
                        block_scalar += attraction * weights[e] * attractive_scalar(d2, p, power)
                    if len(met):
                        if met[(a + j // BLOCK_SIZE) % n_blocks]:
                            coefficient -= repulsion * (scale[i] + scale[j]) * repulsive(d2, p, power)
                            if learns:
                                block_scalar -= repulsion * scale[i] * repulsive_scalar(d2, p, power)
                    for c in range(z.shape[0]):
                        gradient[c, i] += two * coefficient * (z[c, i] - z[c, j])
            scalars[a] = block_scalar

    return forces
