"""Sums over edges, a slice of 16 rows at a time: every step takes one edge of each row and has no remainder.

Points are stored together with all that an edge needs of its other end, so that a random look-up touches one place.
"""

from types import SimpleNamespace

import numpy as np

from torchdr_cne.forces.numerics import power, prefer_wide_vectors
from torchdr_cne.forces.vectors import is_above, lane_sum, load, make_gather, splat, store

_F = np.float32


def make(f: SimpleNamespace, n_components: int) -> SimpleNamespace:
    """Return the kernels ``share`` (of normalised losses) and ``force`` for the compiled functions in ``f``.

    ``width`` is how many numbers stand for a point: its coordinates and, where there is one, its normaliser.
    """
    width = n_components + f.normalised
    return SimpleNamespace(
        width=width,
        scratch_size=(2 * width + n_components) * 16,
        share=_edge_share(f, n_components, width),
        force=_edge_force(f, n_components, width),
    )


def _edge_weight(f: SimpleNamespace):
    weighted = f.weighted

    @f.jit
    def edge_weight(s, e, edges):
        """Weights of 16 rows' edges at ``e``; 0 for those past a row's end."""
        if weighted:
            return load(edges.weights, e)
        return edges.weights[0] * is_above(load(edges.degrees, 16 * s), _F((e - edges.starts[s]) // 16))

    return edge_weight


def _gather_distances(f: SimpleNamespace, d: int, gather, own: int, other: int):
    @f.jit
    def gather_distances(points, columns, e, scratch):
        """Put 16 rows' neighbours at ``e`` beside the rows in the buffer, and return their squared distances."""
        gather(points, columns, e, scratch, other)
        d2 = splat(_F(0))
        for c in range(d):
            difference = load(scratch, own + 16 * c) - load(scratch, other + 16 * c)
            d2 += difference * difference
        return d2

    return gather_distances


def _edge_share(f: SimpleNamespace, d: int, width: int):
    normaliser, edge_weight, gather = f.normaliser, _edge_weight(f), make_gather(width)
    SHARE, OWN, OTHER = 0, 16, (1 + width) * 16
    gather_distances = _gather_distances(f, d, gather, OWN, OTHER)

    @f.jit
    def edge_share(s, edges, p, points, scratch):
        """Σ_j w_ij / (q_ij + S_i) of a slice's rows, into the buffer's beginning."""
        prefer_wide_vectors()
        gather(points, edges.rows, 16 * s, scratch, OWN)
        share = splat(_F(0))
        for e in range(edges.starts[s], edges.starts[s + 1], 16):
            d2 = gather_distances(points, edges.columns, e, scratch)
            share += edge_weight(s, e, edges) / (normaliser(d2, p, power) + load(scratch, OWN + 16 * d))
        store(scratch, SHARE, share)

    return edge_share


def _edge_force(f: SimpleNamespace, d: int, width: int):
    edge_coefficient, edge_weight, attractive_scalar = f.edge_coefficient, _edge_weight(f), f.attractive_scalar
    normalised, learns, gather = f.normalised, f.learns, make_gather(width)
    SUM, OWN, OTHER = 0, d * 16, (d + width) * 16
    gather_distances = _gather_distances(f, d, gather, OWN, OTHER)

    @f.jit
    def edge_force(s, edges, weights, points, scratch):
        """Sum half the forces on a slice's rows into the buffer's beginning; return the learned scalar's part."""
        prefer_wide_vectors()
        gather(points, edges.rows, 16 * s, scratch, OWN)
        scalar = splat(_F(0))
        for c in range(d):
            store(scratch, SUM + 16 * c, splat(_F(0)))
        for e in range(edges.starts[s], edges.starts[s + 1], 16):
            d2 = gather_distances(points, edges.columns, e, scratch)
            weight = edge_weight(s, e, edges)
            if learns:
                scalar += weight * attractive_scalar(d2, weights.p, power)
            total_i = load(scratch, OWN + 16 * d) if normalised else d2
            total_j = load(scratch, OTHER + 16 * d) if normalised else d2
            coefficient = edge_coefficient(d2, weight, total_i, total_j, weights)
            for c in range(d):
                difference = load(scratch, OWN + 16 * c) - load(scratch, OTHER + 16 * c)
                store(scratch, SUM + 16 * c, load(scratch, SUM + 16 * c) + coefficient * difference)
        return weights.attraction * lane_sum(scalar)

    return edge_force
