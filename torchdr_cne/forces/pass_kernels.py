"""The passes of a step, each over a range of blocks or slices: what is looked up, summed, added up and shortened.

A pass works on any range and writes what no other range writes, so any split over threads gives the same bits; a
block's tiles are summed in the order of the shifts, a row's edges in the order of the graph.
"""

from types import SimpleNamespace
from typing import Any

import numpy as np

from torchdr_cne.forces import edge_kernels, tile_kernels
from torchdr_cne.forces.numerics import jit, power, prefer_wide_vectors

_F = np.float32


def make(f: SimpleNamespace, n_components: int, repels: bool) -> SimpleNamespace:
    """Return the passes for the compiled functions in ``f``, and ``point_width``, the numbers that stand for a point.

    ``repels`` tells whether blocks ever meet.
    """
    f.edge_coefficient = _edge_coefficient(f)
    f.squared_distance = _squared_distance(f, n_components)
    f.store_points = _store_points(f, n_components)
    tiles, edges = tile_kernels.make(f, n_components), edge_kernels.make(f, n_components)
    return SimpleNamespace(
        fetch_points=_fetch_points(f),
        fetch_totals=_fetch_totals if f.normalised else _no_pass,
        meet_totals=_meet_totals(f, tiles) if f.normalised else _no_pass,
        add_totals=_add_totals if f.normalised else _no_pass,
        shares=_shares(f, edges, n_components) if f.normalised else _no_pass,
        meet_forces=_meet_forces(f, tiles) if repels else _store_own_points(f),
        add_forces=_add_forces,
        edges=_edges(f, edges, n_components),
        point_width=edges.width,
    )


@jit
def _no_pass(*arguments):
    """Stand in for a pass that a method does not need."""


def _edge_coefficient(f: SimpleNamespace) -> Any:
    """Derivative with respect to d² of all that one undirected edge adds to the loss."""
    attractive, repulsive, normaliser, normalised = f.attractive, f.repulsive, f.normaliser, f.normalised

    @f.jit
    def edge_coefficient(d2, weight, total_i, total_j, weights):
        coefficient = _F(2) * weights.attraction * attractive(d2, weights.p, power)
        if normalised:
            q = normaliser(d2, weights.p, power)
            both = _F(1) / (q + total_i) + _F(1) / (q + total_j)
            coefficient += weights.repulsion * both * repulsive(d2, weights.p, power)
        return weight * coefficient

    return edge_coefficient


def _squared_distance(f: SimpleNamespace, d: int) -> Any:
    @f.jit
    def squared_distance(points, i, j):
        d2 = _F(0)
        for c in range(d):
            d2 += (points[i, c] - points[j, c]) * (points[i, c] - points[j, c])
        return d2

    return squared_distance


def _store_points(f: SimpleNamespace, d: int) -> Any:
    @f.jit
    def store_points(z, a, points):
        for k in range(a * 64, a * 64 + 64):
            for c in range(d):  # a constant: nine times as fast
                points[k, c] = z[c, k]

    return store_points


@jit
def _is_own(block, blocks):
    return blocks.first <= block and block < blocks.first + blocks.n_own


def _fetch_points(f: SimpleNamespace) -> Any:
    store_points = f.store_points

    @f.jit
    def fetch_points(first, last, blocks, room):
        """Store the points of other processes' blocks, for looking up."""
        for a in range(first, last):
            if not _is_own(a, blocks):
                store_points(blocks.z, a, room.points)

    return fetch_points


@jit
def _fetch_totals(first, last, blocks, room):
    """Store the normalisers of other processes' rows beside their points."""
    for a in range(first, last):
        if not _is_own(a, blocks):
            for k in range(a * 64, a * 64 + 64):
                room.points[k, room.points.shape[1] - 1] = room.totals[k]


def _meet_totals(f: SimpleNamespace, tiles: SimpleNamespace) -> Any:
    tile_total, scratch_size, store_points = tiles.total, tiles.scratch_size, f.store_points

    @f.jit
    def meet_totals(first, last, blocks, edges, weights, room):
        """Σ q of each row over each of its block's meetings."""
        prefer_wide_vectors()
        scratch, not_ours = np.empty(scratch_size, _F), np.empty(64, _F)
        for own in range(first, last):
            a = blocks.first + own
            store_points(blocks.z, a, room.points)
            for t in range(len(blocks.shifts)):
                b = (blocks.shifts[t] - a) % len(blocks.sizes)
                if b < a and _is_own(b, blocks):
                    continue
                mine = room.met_totals[own, t]
                theirs = room.met_totals[b - blocks.first, t] if _is_own(b, blocks) else not_ours
                # Always the lower block first: the same bits whoever computes the tile.
                of_low, of_high = (mine, theirs) if a <= b else (theirs, mine)
                tile_total(blocks, min(a, b), max(a, b), weights.p, scratch, of_low, of_high)

    return meet_totals


@jit
def _add_totals(first, last, blocks, room):
    """S_i of each row: its meetings' sums, each negative weighted by the draws it stands for."""
    prefer_wide_vectors()
    n_shifts = len(blocks.shifts)
    for own in range(first, last):
        for k in range(64):
            total, slot = _F(0), (blocks.first + own) * 64 + k
            for t in range(n_shifts):
                total += room.met_totals[own, t, k]
            room.totals[slot] = total * blocks.draw_weights[slot] / _F(n_shifts)


def _shares(f: SimpleNamespace, edges: SimpleNamespace, d: int) -> Any:
    normaliser, squared_distance = f.normaliser, f.squared_distance
    edge_share, scratch_size = edges.share, edges.scratch_size

    @f.jit
    def shares(first, last, blocks, edges, weights, room):
        """Weight of each row in the forces of its negatives: Σ_j w_ij / (q_ij + S_i)."""
        prefer_wide_vectors()
        scratch = np.empty(scratch_size, _F)
        for s in range(first, last):
            for e in range(edges.starts[s], edges.starts[s + 1] if len(blocks.met) else edges.starts[s]):
                i, j = edges.rows[s * 16 + (e - edges.starts[s]) % 16], edges.columns[e]
                if _excluded(i, j, blocks):
                    q = normaliser(squared_distance(room.points, i, j), weights.p, power)
                    room.totals[i] -= q * blocks.draw_weights[i] / _F(len(blocks.shifts))
            # Other threads look up points at the same time, but not the normalisers beside them.
            for i in edges.rows[s * 16 : s * 16 + 16]:
                room.points[i, d] = room.totals[i]
            edge_share(s, edges, weights.p, room.points, scratch)
            for v in range(16):
                slot = edges.rows[s * 16 + v]
                room.scale[slot] = scratch[v] * blocks.draw_weights[slot]

    return shares


@jit
def _excluded(i, j, blocks):
    """Tell whether the ends of an edge, which are no negatives of each other, stand in blocks that met."""
    n_blocks = len(blocks.sizes)
    return i != j and blocks.met[(i // 64 + j // 64) % n_blocks]


def _meet_forces(f: SimpleNamespace, tiles: SimpleNamespace) -> Any:
    normalised, store_points = f.normalised, f.store_points
    tile_force, scratch_size = tiles.force, tiles.scratch_size

    @f.jit
    def meet_forces(first, last, blocks, edges, weights, room):
        """Repulsion of each row in each of its block's meetings, without its factor."""
        prefer_wide_vectors()
        scratch, not_ours = np.empty(scratch_size, _F), np.empty((len(blocks.z), 64), _F)
        for own in range(first, last):
            a = blocks.first + own
            if not normalised:
                store_points(blocks.z, a, room.points)
            scalar = 0.0
            for t in range(len(blocks.shifts)):
                b = (blocks.shifts[t] - a) % len(blocks.sizes)
                if b < a and _is_own(b, blocks):
                    continue
                mine = room.met_forces[own, t]
                theirs = room.met_forces[b - blocks.first, t] if _is_own(b, blocks) else not_ours
                of_low, of_high = (mine, theirs) if a <= b else (theirs, mine)
                low, high = min(a, b), max(a, b)
                both = tile_force(blocks, low, high, room.scale, weights.p, scratch, of_low, of_high)
                scalar += both if a == low else 0.0
            room.block_scalars[own] = scalar * weights.repulsion / max(len(blocks.shifts), 1)

    return meet_forces


def _store_own_points(f: SimpleNamespace) -> Any:
    store_points = f.store_points

    @f.jit
    def store_own_points(first, last, blocks, edges, weights, room):
        """Store own points, for looking up, where no blocks meet."""
        for own in range(first, last):
            store_points(blocks.z, blocks.first + own, room.points)
            room.block_scalars[own] = 0.0

    return store_own_points


@jit
def _add_forces(first, last, blocks, weights, room):
    """Add up the meetings of each block."""
    prefer_wide_vectors()
    n_shifts, d = len(blocks.shifts), len(blocks.z)
    factor = _F(2) * weights.repulsion / _F(max(n_shifts, 1))
    for own in range(first, last):
        for c in range(d):
            for k in range(64):
                total = _F(0)
                for t in range(n_shifts):
                    total += room.met_forces[own, t, c, k]
                room.gradient[c, own * 64 + k] = factor * total


def _edges(f: SimpleNamespace, edges: SimpleNamespace, d: int) -> Any:
    learns, repulsive, repulsive_scalar = f.learns, f.repulsive, f.repulsive_scalar
    edge_force, scratch_size, squared_distance = edges.force, edges.scratch_size, f.squared_distance

    @f.jit
    def take_back(i, j, blocks, weights, room):
        """Take back what an excluded pair has added to row i, because their blocks met; return its scalar's part."""
        repulsion = weights.repulsion / _F(len(blocks.shifts))
        own, other = room.scale[i], room.scale[j]
        d2 = squared_distance(room.points, i, j)
        coefficient = _F(2) * repulsion * (own + other) * repulsive(d2, weights.p, power)
        for c in range(d):
            room.gradient[c, i - blocks.first * 64] -= coefficient * (room.points[i, c] - room.points[j, c])
        return repulsion * own * repulsive_scalar(d2, weights.p, power) if learns else _F(0)

    @f.jit
    def shorten(i, longest, gradient):
        square = _F(0)
        for c in range(d):
            square += gradient[c, i] * gradient[c, i]
        if square > longest * longest:
            for c in range(d):
                gradient[c, i] *= longest / np.sqrt(square)

    @f.jit
    def edges_pass(first, last, blocks, edges, weights, room):
        """Add the forces of the edges, and shorten rows that are too long."""
        prefer_wide_vectors()
        scratch = np.empty(scratch_size, _F)
        for s in range(first, last):
            scalar = edge_force(s, edges, weights, room.points, scratch)
            for e in range(edges.starts[s], edges.starts[s + 1] if len(blocks.met) else edges.starts[s]):
                i, j = edges.rows[s * 16 + (e - edges.starts[s]) % 16], edges.columns[e]
                if _excluded(i, j, blocks):
                    scalar -= take_back(i, j, blocks, weights, room)
            room.slice_scalars[s] = scalar
            for v in range(16):
                own = edges.rows[s * 16 + v] - blocks.first * 64
                for c in range(d):
                    room.gradient[c, own] += _F(2) * scratch[16 * c + v]
                if weights.longest < np.inf:
                    shorten(own, weights.longest, room.gradient)

    return edges_pass
