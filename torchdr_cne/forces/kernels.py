"""Compiled row-owned forces (Numba): one pair of kernels a method and dimension.

Every kernel works on row blocks [first, last) and writes only their rows, so any split over threads gives the same
bits. Within a row the tiles come in the order of the shifts and the edges in the order of the columns.
"""

from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from torchdr_cne.forces import row_kernels_2d, row_kernels_nd
from torchdr_cne.forces.caching import cache_by_content
from torchdr_cne.forces.declaration import PairForces
from torchdr_cne.forces.numerics import jit, power, prefer_wide_vectors, single_precision
from torchdr_cne.forces.row_kernels_nd import squared_distance

_F = np.float32


@jit
def _nothing(d2, p, power):
    return _F(0)


@lru_cache(maxsize=64)
def compiled_kernels(forces: PairForces, n_components: int) -> SimpleNamespace:
    """Return the kernels ``totals_and_shares`` (None unless normalised) and ``forces`` of a declaration."""
    f = SimpleNamespace(
        **{
            name: _nothing if function is None else jit(single_precision(function))
            for name, function in vars(forces).items()
        },
        normalised=forces.normaliser is not None,
        learns=forces.attractive_scalar is not None,
    )
    f.edge_coefficient = _edge_coefficient(f)
    any_tile = row_kernels_nd.make(f)
    rows = row_kernels_2d.make(f) if n_components == 2 else any_tile
    kernels = SimpleNamespace(
        totals_and_shares=_totals_and_shares(f, rows, any_tile) if f.normalised else None,
        forces=_forces(f, rows, any_tile),
    )
    for kernel in vars(kernels).values():
        if kernel is not None:
            cache_by_content(kernel, (forces, n_components))
    return kernels


def _edge_coefficient(f: SimpleNamespace) -> Any:
    """Derivative with respect to d² of all that one undirected edge adds to the loss."""
    attractive, repulsive, normaliser, normalised = f.attractive, f.repulsive, f.normaliser, f.normalised

    @jit
    def edge_coefficient(d2, weight, total_i, total_j, p, attraction, repulsion):
        coefficient = _F(2) * attraction * attractive(d2, p, power)
        if normalised:
            q = normaliser(d2, p, power)
            both = _F(1) / (q + total_i) + _F(1) / (q + total_j)
            coefficient += repulsion * both * repulsive(d2, p, power)
        return weight * coefficient

    return edge_coefficient


def _totals_and_shares(f: SimpleNamespace, rows: SimpleNamespace, any_tile: SimpleNamespace) -> Any:
    """First pass of normalised losses: S_i over the negatives, then Σ_j w_ij / (q_ij + S_i)."""
    normaliser, edge_share = f.normaliser, rows.edge_share
    tile_total, own_tile_total = rows.tile_total, any_tile.tile_total

    @jit
    def totals_and_shares(
        first, last, z, shifts, mask, sizes, draw_weights, indptr, indices, weights, p, met, totals, shares
    ):
        prefer_wide_vectors()
        n_blocks = len(sizes)
        for a in range(first, last):
            start = a * 64
            for s in shifts:
                b = (s - a) % n_blocks
                if b != a:
                    tile_total(z, a, b, sizes, mask, p, totals)
                else:
                    own_tile_total(z, a, b, sizes, mask, p, totals)
            for i in range(start, start + sizes[a]):
                if len(met):
                    for e in range(indptr[i], indptr[i + 1]):
                        if met[(a + indices[e] // 64) % n_blocks]:
                            totals[i] -= normaliser(squared_distance(z, i, indices[e]), p, power)
                totals[i] *= draw_weights[i]
                shares[i] = edge_share(z, i, indptr[i], indptr[i + 1], indices, weights, p, totals[i])

    return totals_and_shares


def _forces(f: SimpleNamespace, rows: SimpleNamespace, any_tile: SimpleNamespace) -> Any:
    """Forces of tiles and of edges, and the learned scalar's derivative, summed a block."""
    edge_force, tile_force, own_tile_force = rows.edge_force, rows.tile_force, any_tile.tile_force
    learns, repulsive, repulsive_scalar = f.learns, f.repulsive, f.repulsive_scalar

    @jit
    def discard_met_edges(z, a, i, start, stop, indices, scale, p, met, repulsion, gradient):
        """Take back what excluded pairs that met in this step have added."""
        removed = 0.0
        for e in range(start, stop):
            j = indices[e]
            if met[(a + j // 64) % len(met)]:
                d2 = squared_distance(z, i, j)
                coefficient = _F(2) * repulsion * (scale[i] + scale[j]) * repulsive(d2, p, power)
                for c in range(z.shape[0]):
                    gradient[c, i] -= coefficient * (z[c, i] - z[c, j])
                if learns:
                    removed += repulsion * scale[i] * repulsive_scalar(d2, p, power)
        return removed

    @jit
    def forces(
        first, last, z, shifts, mask, sizes, scale, indptr, indices, weights, p,
        met, totals, attraction, repulsion, gradient, scalars,
    ):  # fmt: skip
        prefer_wide_vectors()
        n_blocks = len(sizes)
        factor = _F(2) * repulsion
        for a in range(first, last):
            start = a * 64
            gradient[:, start : start + 64] = _F(0)
            block_scalar = 0.0
            for s in shifts:
                b = (s - a) % n_blocks
                if b != a:
                    tile_scalar = tile_force(z, a, b, sizes, mask, scale, p, factor, gradient)
                else:
                    tile_scalar = own_tile_force(z, a, b, sizes, mask, scale, p, factor, gradient)
                block_scalar += repulsion * tile_scalar
            for i in range(start, start + sizes[a]):
                low, high = indptr[i], indptr[i + 1]
                block_scalar += edge_force(
                    z, i, low, high, indices, weights, p, totals, attraction, repulsion, gradient
                )
                if len(met):
                    block_scalar -= discard_met_edges(z, a, i, low, high, indices, scale, p, met, repulsion, gradient)
            scalars[a] = block_scalar

    return forces
