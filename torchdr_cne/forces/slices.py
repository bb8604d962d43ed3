"""Edges in slices of 16 rows of like degree, so that one vector step serves an edge of each.

Rows are sorted by degree within windows; a slice is as wide as its longest row, and shorter rows are filled with edges
to themselves of weight 0 (sliced ELLPACK; Monakov, Lokhmotov & Avetisyan, 2010).
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from torchdr_cne.affinity import AffinityGraph
from torchdr_cne.forces.vectors import LANES
from torchdr_cne.sampling import BlockLayout
from torchdr_cne.workers import Workers

_WINDOW = 256
_MORTON_BITS = 62


class EdgeSlices(NamedTuple):
    """All directed edges, slice by slice.

    A point's *place* is where it stands among the gathered points, in an order in which neighbours should be near each
    other; its *slot* is where blocks have it, at random.

    Attributes
    ----------
    place_of, slot_at : ndarray of shape (slots,), int32
        Place of each slot, and the slot at each place.
    rows : ndarray of shape (S · 16,), int32
        Place of each lane of each slice.
    starts : ndarray of shape (S + 1,), int64
        Where each slice begins in ``columns``.
    columns, weights : ndarray of shape (starts[-1],), int32 and float32
        Lane v's e-th edge of slice s at ``starts[s] + 16 e + v``, to a place.
    """

    place_of: np.ndarray
    slot_at: np.ndarray
    rows: np.ndarray
    starts: np.ndarray
    columns: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, graph: AffinityGraph, layout: BlockLayout, order: np.ndarray, workers: Workers) -> "EdgeSlices":
        """Arrange the edges of ``graph``, over points, with the slots in the places of ``order``."""
        indptr, slot_of = graph.indptr.numpy(), layout.slot_of.numpy()
        n_slots = layout.n_slots
        point_at = np.full(n_slots, -1, dtype=np.int32)
        point_at[slot_of] = np.arange(len(slot_of), dtype=np.int32)
        place_of = np.empty(n_slots, dtype=np.int32)
        place_of[order] = np.arange(n_slots, dtype=np.int32)
        degrees = np.zeros(n_slots, dtype=np.int32)
        degrees[place_of[slot_of]] = np.diff(indptr)
        rows = np.lexsort((-degrees, np.arange(n_slots) // _WINDOW)).astype(np.int32)
        widths = degrees[rows].reshape(-1, LANES).max(axis=1)
        starts = np.concatenate([[0], np.cumsum(widths.astype(np.int64) * LANES)])
        columns, weights = np.empty(starts[-1], dtype=np.int32), np.empty(starts[-1], dtype=np.float32)
        matrix = indptr, graph.indices.numpy(), graph.weights.numpy()
        points, place_of_point = point_at[order[rows]], place_of[slot_of]
        workers.share(_fill, len(widths), rows, starts, points, place_of_point, *matrix, columns, weights)
        return cls(place_of, order, rows, starts, columns, weights)


def nearby_order(z: np.ndarray) -> np.ndarray:
    """Return the slots of ``z`` (d, slots) along a Morton curve, on which near positions mostly stand together."""
    bits = min(16, _MORTON_BITS // len(z))
    low, high = z.min(axis=1, keepdims=True), z.max(axis=1, keepdims=True)
    cells = ((z - low) / np.maximum(high - low, np.finfo(np.float32).tiny) * (2**bits - 1)).astype(np.int64)
    return np.argsort(_interleave(cells, bits), kind="stable").astype(np.int32)


@njit(nogil=True, cache=True)
def _interleave(cells, bits):
    d, n = cells.shape
    codes = np.zeros(n, dtype=np.int64)
    for i in range(n):
        for bit in range(bits - 1, -1, -1):
            for c in range(d):
                codes[i] = (codes[i] << 1) | ((cells[c, i] >> bit) & 1)
    return codes


@njit(nogil=True, cache=True)
def _fill(first, last, rows, starts, points, place_of, indptr, indices, edge_weights, columns, weights):
    """Write the slices [first, last): the edges of their ``points``, −1 where a slot is empty."""
    for s in range(first, last):
        width = (starts[s + 1] - starts[s]) // LANES
        for v in range(LANES):
            point, place = points[s * LANES + v], starts[s] + v
            begin = indptr[point] if point >= 0 else 0
            degree = indptr[point + 1] - begin if point >= 0 else 0
            for e in range(width):
                columns[place] = place_of[indices[begin + e]] if e < degree else rows[s * LANES + v]
                weights[place] = edge_weights[begin + e] if e < degree else 0
                place += LANES
