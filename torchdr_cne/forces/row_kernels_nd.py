"""Row sums in any number of dimensions, through a buffer of 64 squared distances; also for a block with itself."""

from types import SimpleNamespace

import numpy as np

from torchdr_cne.forces.numerics import jit, power

_F = np.float32


@jit
def _block_distances(z, i, b, buffer):
    buffer[:] = _F(0)
    for c in range(z.shape[0]):
        x, xs = z[c, i], z[c, b * 64 : b * 64 + 64]
        for k in range(64):
            buffer[k] += (x - xs[k]) * (x - xs[k])


@jit
def squared_distance(z, i, j):
    """Return ‖z_i − z_j‖² of two slots."""
    d2 = _F(0)
    for c in range(z.shape[0]):
        d2 += (z[c, i] - z[c, j]) * (z[c, i] - z[c, j])
    return d2


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
        buffer = np.empty(64, _F)
        for t in range(sizes[a]):
            i = a * 64 + t
            _block_distances(z, i, b, buffer)
            total = _F(0)
            for k in range(sizes[b]):
                if a != b or k != t:
                    total += normaliser(buffer[k], p, power)
            totals[i] += total

    return tile_total


def _tile_force(f):
    repulsive, repulsive_scalar, learns = f.repulsive, f.repulsive_scalar, f.learns

    @jit
    def tile_force(z, a, b, sizes, mask, scale, p, factor, gradient):
        buffer = np.empty(64, _F)
        tile_scalar = 0.0
        for t in range(sizes[a]):
            i = a * 64 + t
            _block_distances(z, i, b, buffer)
            for k in range(sizes[b]):
                if a == b and k == t:
                    buffer[k] = _F(0)
                else:
                    if learns:
                        tile_scalar += scale[i] * repulsive_scalar(buffer[k], p, power)
                    buffer[k] = (scale[i] + scale[b * 64 + k]) * repulsive(buffer[k], p, power)
            for c in range(z.shape[0]):
                x, xs, total = z[c, i], z[c, b * 64 : b * 64 + 64], _F(0)
                for k in range(sizes[b]):
                    total += buffer[k] * (x - xs[k])
                gradient[c, i] += factor * total
        return tile_scalar

    return tile_force


def _edge_share(f):
    normaliser = f.normaliser

    @jit
    def edge_share(z, i, start, stop, indices, weights, p, total):
        share = _F(0)
        for e in range(start, stop):
            share += weights[e] / (normaliser(squared_distance(z, i, indices[e]), p, power) + total)
        return share

    return edge_share


def _edge_force(f):
    edge_coefficient, attractive_scalar = f.edge_coefficient, f.attractive_scalar
    normalised, learns = f.normalised, f.learns

    @jit
    def edge_force(z, i, start, stop, indices, weights, p, totals, attraction, repulsion, gradient):
        total_i = totals[i] if normalised else _F(0)
        scalar = _F(0)
        for e in range(start, stop):
            j = indices[e]
            total_j = totals[j] if normalised else _F(0)
            d2 = squared_distance(z, i, j)
            c = edge_coefficient(d2, weights[e], total_i, total_j, p, attraction, repulsion)
            for k in range(z.shape[0]):
                gradient[k, i] += _F(2) * c * (z[k, i] - z[k, j])
            if learns:
                scalar += weights[e] * attractive_scalar(d2, p, power)
        return attraction * scalar

    return edge_force
