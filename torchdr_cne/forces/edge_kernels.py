"""Sums over edges, a slice of 16 rows at a time: every step takes one edge of each row and has no remainder.

Points are stored together with all that an edge needs of its other end, so that a random look-up touches one place.
"""

from types import SimpleNamespace

import numpy as np

from torchdr_cne.forces.numerics import jit, power, prefer_wide_vectors
from torchdr_cne.forces.vectors import lane_sum, load, make_gather, splat, store

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


def _edge_share(f: SimpleNamespace, d: int, width: int):
    normaliser, gather = f.normaliser, make_gather(width)
    OWN, OTHER = 0, width * 16

    @jit
    def edge_share(slice_rows, first, last, columns, weights, points, p, scratch, shares):
        """Σ_j w_ij / (q_ij + S_i) of 16 rows with the edges [first, last)."""
        prefer_wide_vectors()
        gather(points, slice_rows, 0, scratch, OWN)
        share = splat(_F(0))
        for e in range(first, last, 16):
            gather(points, columns, e, scratch, OTHER)
            d2 = splat(_F(0))
            for c in range(d):
                difference = load(scratch, OWN + 16 * c) - load(scratch, OTHER + 16 * c)
                d2 += difference * difference
            share += load(weights, e) / (normaliser(d2, p, power) + load(scratch, OWN + 16 * d))
        store(scratch, OTHER, share)
        for v in range(16):
            shares[slice_rows[v]] = scratch[OTHER + v]

    return edge_share


def _edge_force(f: SimpleNamespace, d: int, width: int):
    edge_coefficient, attractive_scalar = f.edge_coefficient, f.attractive_scalar
    normalised, learns, gather = f.normalised, f.learns, make_gather(width)
    OWN, OTHER, SUM = 0, width * 16, 2 * width * 16

    @jit
    def edge_force(slice_rows, first, last, columns, weights, points, p, attraction, repulsion, scratch, gradient):
        """Add the forces of the edges [first, last) to 16 rows; return the learned scalar's part."""
        prefer_wide_vectors()
        gather(points, slice_rows, 0, scratch, OWN)
        scalar = splat(_F(0))
        for c in range(d):
            store(scratch, SUM + 16 * c, splat(_F(0)))
        for e in range(first, last, 16):
            gather(points, columns, e, scratch, OTHER)
            d2 = splat(_F(0))
            for c in range(d):
                difference = load(scratch, OWN + 16 * c) - load(scratch, OTHER + 16 * c)
                d2 += difference * difference
            weight = load(weights, e)
            if learns:
                scalar += weight * attractive_scalar(d2, p, power)
            total_i = load(scratch, OWN + 16 * d) if normalised else d2
            total_j = load(scratch, OTHER + 16 * d) if normalised else d2
            coefficient = edge_coefficient(d2, weight, total_i, total_j, p, attraction, repulsion)
            for c in range(d):
                difference = load(scratch, OWN + 16 * c) - load(scratch, OTHER + 16 * c)
                store(scratch, SUM + 16 * c, load(scratch, SUM + 16 * c) + coefficient * difference)
        for v in range(16):
            for c in range(d):
                gradient[c, slice_rows[v]] += _F(2) * scratch[SUM + 16 * c + v]
        return attraction * lane_sum(scalar)

    return edge_force
