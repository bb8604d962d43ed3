"""Compiled row-owned forces (Numba): a few passes over blocks a method and dimension.

A pass works on any range of blocks or windows and writes what no other range writes, so any split over threads gives
the same bits; a block's tiles are summed in the order of the shifts, a row's edges in the order of the graph. `step`
runs the passes of a gradient one after the other, the threads taking ranges as they go.
"""

from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from torchdr_cne.forces import edge_kernels, tile_kernels
from torchdr_cne.forces.caching import cache_by_content
from torchdr_cne.forces.declaration import PairForces
from torchdr_cne.forces.numerics import jit, power, prefer_wide_vectors, single_precision
from torchdr_cne.forces.slices import WINDOW_BLOCKS
from torchdr_cne.forces.team import take, wait_for_all
from torchdr_cne.forces.vectors import LANES
from torchdr_cne.sampling import BLOCK_SIZE

_F = np.float32
_WINDOW_ROWS = WINDOW_BLOCKS * BLOCK_SIZE
_WINDOW_SLICES = _WINDOW_ROWS // LANES


@jit
def _nothing(d2, p, power):
    return _F(0)


@lru_cache(maxsize=64)
def compiled_kernels(forces: PairForces, n_components: int) -> SimpleNamespace:
    """Return a declaration's kernel ``step``, and ``point_width``, the numbers that stand for a point in it."""
    f = SimpleNamespace(
        **{
            name: _nothing if function is None else jit(single_precision(function))
            for name, function in vars(forces).items()
        },
        normalised=forces.normaliser is not None,
        learns=forces.attractive_scalar is not None,
    )
    f.edge_coefficient = _edge_coefficient(f)
    tiles, edges = tile_kernels.make(f, n_components), edge_kernels.make(f, n_components)
    f.squared_distance = _squared_distance(n_components)
    passes = SimpleNamespace(
        meet_totals=_meet_totals(tiles, n_components) if f.normalised else _no_pass,
        shares=_shares(f, edges, n_components) if f.normalised else _no_pass,
        meet_forces=_meet_forces(f, tiles, n_components),
        gradient=_gradient(f, edges, n_components),
    )
    step = _step(passes, f.normalised)
    cache_by_content(step, (forces, n_components))
    return SimpleNamespace(step=step, point_width=edges.width)


@jit
def _no_pass(*arguments):
    """Stand in for a pass that a method does not need."""


def _step(passes: SimpleNamespace, normalised: bool) -> Any:
    meet_totals, shares, meet_forces, gradient_pass = vars(passes).values()

    @jit
    def step(
        n_threads, counters, range_blocks, range_windows, z, shifts, mask, sizes, draw_weights, rows, starts, columns,
        weights, p, met, attraction, repulsion, longest, points, met_totals, totals, scale, met_forces, gradient,
        tile_scalars, edge_scalars,
    ):  # fmt: skip
        """Take part in one step, with the other threads; the passes wait for each other."""
        n_blocks, n_windows = len(sizes), len(edge_scalars)
        if normalised:
            first = take(counters, 0, range_blocks)
            while first < n_blocks:
                last = min(first + range_blocks, n_blocks)
                meet_totals(first, last, z, shifts, mask, sizes, p, points, met_totals)
                first = take(counters, 0, range_blocks)
            wait_for_all(counters, 1, n_threads)
            first = take(counters, 2, range_windows)
            while first < n_windows:
                last = min(first + range_windows, n_windows)
                shares(
                    first, last, met_totals, draw_weights, rows, starts, columns, weights, points, p, met,
                    totals, scale,
                )  # fmt: skip
                first = take(counters, 2, range_windows)
            wait_for_all(counters, 3, n_threads)
        first = take(counters, 4, range_blocks)
        while first < n_blocks:
            last = min(first + range_blocks, n_blocks)
            meet_forces(first, last, z, shifts, mask, sizes, scale, p, points, met_forces, tile_scalars)
            first = take(counters, 4, range_blocks)
        wait_for_all(counters, 5, n_threads)
        first = take(counters, 6, range_windows)
        while first < n_windows:
            last = min(first + range_windows, n_windows)
            gradient_pass(
                first, last, met_forces, rows, starts, columns, weights, scale, points, p, met,
                attraction, repulsion, longest, gradient, edge_scalars,
            )  # fmt: skip
            first = take(counters, 6, range_windows)

    return step


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


def _squared_distance(d: int) -> Any:
    @jit
    def squared_distance(points, i, j):
        d2 = _F(0)
        for c in range(d):
            d2 += (points[i, c] - points[j, c]) * (points[i, c] - points[j, c])
        return d2

    return squared_distance


@jit
def _store_points(z, a, points):
    for c in range(z.shape[0]):
        for k in range(a * 64, a * 64 + 64):
            points[k, c] = z[c, k]


def _meet_totals(tiles: SimpleNamespace, d: int) -> Any:
    tile_total, scratch_size = tiles.total, tiles.scratch_size

    @jit
    def meet_totals(first, last, z, shifts, mask, sizes, p, points, met_totals):
        """Σ q of each row over each of its block's meetings, (blocks, shifts, 64)."""
        prefer_wide_vectors()
        scratch = np.empty(scratch_size, _F)
        for a in range(first, last):
            _store_points(z, a, points)
            for t in range(len(shifts)):
                b = (shifts[t] - a) % len(sizes)
                if a <= b:
                    tile_total(z, a, b, sizes[a], mask, p, scratch, met_totals[a, t], met_totals[b, t])

    return meet_totals


def _shares(f: SimpleNamespace, edges: SimpleNamespace, d: int) -> Any:
    normaliser, squared_distance = f.normaliser, f.squared_distance
    edge_share, scratch_size = edges.share, edges.scratch_size

    @jit
    def shares(first, last, met_totals, draw_weights, rows, starts, columns, weights, points, p, met, totals, scale):
        """S_i of each row, and its weight in the forces of its negatives: Σ_j w_ij / (q_ij + S_i), draws weighted."""
        prefer_wide_vectors()
        n_blocks, n_shifts = met_totals.shape[0], met_totals.shape[1]
        share_of_draws = _F(1) / _F(n_shifts)
        scratch = np.empty(scratch_size, _F)
        for window in range(first, last):
            for a in range(window * WINDOW_BLOCKS, min((window + 1) * WINDOW_BLOCKS, n_blocks)):
                for k in range(64):
                    total = _F(0)
                    for t in range(n_shifts):
                        total += met_totals[a, t, k]
                    totals[a * 64 + k] = total
            for s in range(window * _WINDOW_SLICES, min((window + 1) * _WINDOW_SLICES, len(starts) - 1)):
                slice_rows = rows[s * 16 : s * 16 + 16]
                if len(met):
                    for e in range(starts[s], starts[s + 1]):
                        i, j = slice_rows[(e - starts[s]) % 16], columns[e]
                        if weights[e] > 0 and met[(i // 64 + j // 64) % n_blocks]:
                            totals[i] -= normaliser(squared_distance(points, i, j), p, power)
                for v in range(16):
                    totals[slice_rows[v]] *= draw_weights[slice_rows[v]] * share_of_draws
                    points[slice_rows[v], d] = totals[slice_rows[v]]
                edge_share(slice_rows, starts[s], starts[s + 1], columns, weights, points, p, scratch, scale)
                for v in range(16):
                    scale[slice_rows[v]] *= draw_weights[slice_rows[v]]

    return shares


def _meet_forces(f: SimpleNamespace, tiles: SimpleNamespace, d: int) -> Any:
    normalised = f.normalised
    tile_force, scratch_size = tiles.force, tiles.scratch_size

    @jit
    def meet_forces(first, last, z, shifts, mask, sizes, scale, p, points, met_forces, scalars):
        """Repulsion of each row in each of its block's meetings, (blocks, shifts, d, 64), without its factor."""
        prefer_wide_vectors()
        scratch = np.empty(scratch_size, _F)
        for a in range(first, last):
            if not normalised:
                _store_points(z, a, points)
            scalar = 0.0
            for t in range(len(shifts)):
                b = (shifts[t] - a) % len(sizes)
                if a <= b:
                    scalar += tile_force(z, a, b, sizes[a], mask, scale, p, scratch, met_forces[a, t], met_forces[b, t])
            scalars[a] = scalar

    return meet_forces


def _gradient(f: SimpleNamespace, edges: SimpleNamespace, d: int) -> Any:
    learns, repulsive, repulsive_scalar = f.learns, f.repulsive, f.repulsive_scalar
    edge_force, scratch_size, squared_distance = edges.force, edges.scratch_size, f.squared_distance

    @jit
    def take_back(i, j, n_blocks, scale, points, p, factor, gradient):
        """Take back what an excluded pair has added to row i, because their blocks met; return its scalar's part."""
        d2 = squared_distance(points, i, j)
        coefficient = factor * (scale[i] + scale[j]) * repulsive(d2, p, power)
        for c in range(d):
            gradient[c, i] -= coefficient * (points[i, c] - points[j, c])
        return scale[i] * repulsive_scalar(d2, p, power) if learns else _F(0)

    @jit
    def gradient(
        first, last, met_forces, rows, starts, columns, weights, scale, points, p, met,
        attraction, repulsion, longest, gradient, scalars,
    ):  # fmt: skip
        """Add up meetings and edges of the rows of each window."""
        prefer_wide_vectors()
        n_blocks, n_shifts = met_forces.shape[0], met_forces.shape[1]
        met_repulsion = repulsion / _F(n_shifts)
        factor = _F(2) * met_repulsion
        scratch = np.empty(scratch_size, _F)
        for window in range(first, last):
            for a in range(window * WINDOW_BLOCKS, min((window + 1) * WINDOW_BLOCKS, n_blocks)):
                for c in range(d):
                    for k in range(64):
                        total = _F(0)
                        for t in range(n_shifts):
                            total += met_forces[a, t, c, k]
                        gradient[c, a * 64 + k] = factor * total
            scalar = 0.0
            for s in range(window * _WINDOW_SLICES, min((window + 1) * _WINDOW_SLICES, len(starts) - 1)):
                slice_rows = rows[s * 16 : s * 16 + 16]
                scalar += edge_force(
                    slice_rows, starts[s], starts[s + 1], columns, weights, points, p, attraction, repulsion,
                    scratch, gradient,
                )  # fmt: skip
                if len(met):
                    for e in range(starts[s], starts[s + 1]):
                        i, j = slice_rows[(e - starts[s]) % 16], columns[e]
                        if weights[e] > 0 and met[(i // 64 + j // 64) % n_blocks]:
                            scalar -= met_repulsion * take_back(i, j, n_blocks, scale, points, p, factor, gradient)
            scalars[window] = scalar
            if longest < np.inf:
                for i in range(window * _WINDOW_ROWS, min((window + 1) * _WINDOW_ROWS, n_blocks * 64)):
                    square = _F(0)
                    for c in range(d):
                        square += gradient[c, i] * gradient[c, i]
                    if square > longest * longest:
                        for c in range(d):
                            gradient[c, i] *= longest / np.sqrt(square)

    return gradient
