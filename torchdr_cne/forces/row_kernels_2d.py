"""Row sums in two dimensions, kept in registers.

Tiles are of two different blocks, see `row_kernels_nd` for a block that meets itself. Inner loops run over 64
contiguous partners, or over 16 edges at a time with those past the row's end weighted 0, so
that their trip counts are constants and they vectorise without a remainder. Edge arrays carry 16 spare entries.
"""

from types import SimpleNamespace

import numpy as np

from torchdr_cne.forces.numerics import jit, power, prefer_wide_vectors

_F = np.float32
EDGE_CHUNK = 16


def make(f: SimpleNamespace) -> SimpleNamespace:
    """Return the four row kernels for the compiled functions in ``f``."""
    return SimpleNamespace(
        tile_total=_tile_total(f),
        tile_force=_tile_force(f),
        edge_share=_edge_share(f),
        edge_force=_edge_force(f),
    )


def _tile_total(f):
    normaliser = f.normaliser

    @jit
    def tile_total(z, a, b, sizes, mask, p, totals):
        prefer_wide_vectors()
        xs, ys, present = z[0, b * 64 : b * 64 + 64], z[1, b * 64 : b * 64 + 64], mask[b * 64 : b * 64 + 64]
        for i in range(a * 64, a * 64 + sizes[a]):
            x, y, total = z[0, i], z[1, i], _F(0)
            for k in range(64):
                dx, dy = x - xs[k], y - ys[k]
                total += present[k] * normaliser(dx * dx + dy * dy, p, power)
            totals[i] += total

    return tile_total


def _tile_force(f):
    repulsive, repulsive_scalar, learns = f.repulsive, f.repulsive_scalar, f.learns

    @jit
    def tile_force(z, a, b, sizes, mask, scale, p, factor, gradient):
        prefer_wide_vectors()
        xs, ys = z[0, b * 64 : b * 64 + 64], z[1, b * 64 : b * 64 + 64]
        present, theirs = mask[b * 64 : b * 64 + 64], scale[b * 64 : b * 64 + 64]
        tile_scalar = 0.0
        for i in range(a * 64, a * 64 + sizes[a]):
            x, y, own = z[0, i], z[1, i], scale[i]
            gx, gy, scalar = _F(0), _F(0), _F(0)
            for k in range(64):
                dx, dy = x - xs[k], y - ys[k]
                d2 = dx * dx + dy * dy
                c = (own * present[k] + theirs[k]) * repulsive(d2, p, power)
                gx += c * dx
                gy += c * dy
                if learns:
                    scalar += present[k] * repulsive_scalar(d2, p, power)
            gradient[0, i] += factor * gx
            gradient[1, i] += factor * gy
            tile_scalar += own * scalar
        return tile_scalar

    return tile_force


def _edge_share(f):
    normaliser = f.normaliser

    @jit
    def edge_share(z, i, start, stop, indices, weights, p, total):
        prefer_wide_vectors()
        xs, ys = z[0], z[1]
        x, y, share = xs[i], ys[i], _F(0)
        for first in range(start, stop, EDGE_CHUNK):
            columns, row_weights = indices[first : first + EDGE_CHUNK], weights[first : first + EDGE_CHUNK]
            left = stop - first
            for v in range(EDGE_CHUNK):
                dx, dy = x - xs[columns[v]], y - ys[columns[v]]
                weight = row_weights[v] if v < left else _F(0)
                share += weight / (normaliser(dx * dx + dy * dy, p, power) + total)
        return share

    return edge_share


def _edge_force(f):
    edge_coefficient, attractive_scalar = f.edge_coefficient, f.attractive_scalar
    normalised, learns = f.normalised, f.learns

    @jit
    def edge_force(z, i, start, stop, indices, weights, p, totals, attraction, repulsion, gradient):
        prefer_wide_vectors()
        xs, ys = z[0], z[1]
        x, y = xs[i], ys[i]
        gx, gy, scalar = _F(0), _F(0), _F(0)
        total_i = totals[i] if normalised else _F(0)
        for first in range(start, stop, EDGE_CHUNK):
            columns, row_weights = indices[first : first + EDGE_CHUNK], weights[first : first + EDGE_CHUNK]
            left = stop - first
            for v in range(EDGE_CHUNK):
                j = columns[v]
                dx, dy = x - xs[j], y - ys[j]
                weight = row_weights[v] if v < left else _F(0)
                total_j = totals[j] if normalised else _F(0)
                d2 = dx * dx + dy * dy
                c = edge_coefficient(d2, weight, total_i, total_j, p, attraction, repulsion)
                gx += c * dx
                gy += c * dy
                if learns:
                    scalar += weight * attractive_scalar(d2, p, power)
        gradient[0, i] += _F(2) * gx
        gradient[1, i] += _F(2) * gy
        return attraction * scalar

    return edge_force
