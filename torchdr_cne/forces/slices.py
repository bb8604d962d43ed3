"""Edges in slices of 16 rows of like degree, so that one vector step serves an edge of each.

Rows are sorted by degree within windows of a few blocks; a slice is as wide as its longest row, and shorter rows are
filled with edges to themselves of weight 0 (Monakov, Lokhmotov & Avetisyan, 2010: sliced ELLPACK).
"""

from dataclasses import dataclass

import numpy as np
from numba import njit

from torchdr_cne.affinity import AffinityGraph
from torchdr_cne.forces.vectors import LANES
from torchdr_cne.sampling import BLOCK_SIZE, BlockLayout

WINDOW_BLOCKS = 4


@dataclass(frozen=True)
class EdgeSlices:
    """All directed edges, slice by slice.

    Attributes
    ----------
    rows : ndarray of shape (S · 16,), int32
        Slot of each lane of each slice; windows of rows stay together.
    starts : ndarray of shape (S + 1,), int64
        Where each slice begins in ``columns``.
    columns, weights : ndarray of shape (starts[-1],), int32 and float32
        Lane v's e-th edge of slice s at ``starts[s] + 16 e + v``.
    row_weights : ndarray of shape (slots,), float32
        Sum of each row's weights.
    """

    rows: np.ndarray
    starts: np.ndarray
    columns: np.ndarray
    weights: np.ndarray
    row_weights: np.ndarray

    @classmethod
    def of(cls, graph: AffinityGraph, layout: BlockLayout) -> "EdgeSlices":
        """Arrange the edges of ``graph``, over points, by the slots of ``layout``."""
        indptr, slot_of = graph.indptr.numpy(), layout.slot_of.numpy()
        degrees = np.zeros(layout.n_slots, dtype=np.int64)
        degrees[slot_of] = np.diff(indptr)
        windows = np.arange(layout.n_slots) // (WINDOW_BLOCKS * BLOCK_SIZE)
        rows = np.lexsort((-degrees, windows)).astype(np.int32)
        widths = degrees[rows].reshape(-1, LANES).max(axis=1)
        starts = np.concatenate([[0], np.cumsum(widths * LANES)])
        point_at = np.full(layout.n_slots, -1, dtype=np.int32)
        point_at[slot_of] = np.arange(len(slot_of), dtype=np.int32)
        columns = np.empty(starts[-1], dtype=np.int32)
        weights = np.zeros(starts[-1], dtype=np.float32)
        row_weights = np.zeros(layout.n_slots, dtype=np.float32)
        matrix = indptr, graph.indices.numpy(), graph.weights.numpy()
        _fill(rows, starts, point_at, slot_of, *matrix, columns, weights, row_weights)
        return cls(rows, starts, columns, weights, row_weights)


@njit(nogil=True, cache=True)
def _fill(rows, starts, point_at, slot_of, indptr, indices, edge_weights, columns, weights, row_weights):
    for s in range(len(starts) - 1):
        width = (starts[s + 1] - starts[s]) // LANES
        for v in range(LANES):
            row = rows[s * LANES + v]
            point, place = point_at[row], starts[s] + v
            first = indptr[point] if point >= 0 else 0
            degree = indptr[point + 1] - first if point >= 0 else 0
            total = 0.0
            for e in range(width):
                inside = e < degree
                columns[place] = slot_of[indices[first + e]] if inside else row
                weights[place] = edge_weights[first + e] if inside else 0
                total += weights[place]
                place += LANES
            row_weights[row] = total
