"""Edges in slices of 16 rows of like degree, so that one vector step serves an edge of each.

Rows are sorted by degree within windows; a slice is as wide as its longest row, and shorter rows are filled with edges
to themselves of weight 0 (sliced ELLPACK; Monakov, Lokhmotov & Avetisyan, 2010).
"""

from typing import NamedTuple

import numpy as np

from torchdr_cne.forces.problem import ForceProblem
from torchdr_cne.kernel_cache import cached_njit
from torchdr_cne.simd import LANES
from torchdr_cne.workers import Workers

_WINDOW = 256


class EdgeSlices(NamedTuple):
    """The directed edges of a rank's slots, slice by slice.

    Attributes
    ----------
    rows : ndarray of shape (S · 16,), int32
        Slot of each lane of each slice.
    degrees : ndarray of shape (S · 16,), float32
        How many of the lane's edges are real.
    starts : ndarray of shape (S + 1,), int64
        Where each slice begins in ``columns``.
    columns : ndarray of shape (starts[-1],), int32
        Lane v's e-th edge of slice s, to a slot, at ``starts[s] + 16 e + v``.
    weights : ndarray of shape (starts[-1],), float32
        Their weights; one number if all edges have it, which spares a million points' graph the way through memory.
    """

    rows: np.ndarray
    degrees: np.ndarray
    starts: np.ndarray
    columns: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, problem: ForceProblem, workers: Workers) -> "EdgeSlices":
        """Arrange the edges of the problem's graph by its slots."""
        graph, own = problem.graph, problem.share.own
        indptr, edge_weights, place = graph.indptr.numpy(), graph.weights.numpy(), problem.slots.numpy() - own.start
        slot_of, n_own = problem.layout.slot_of.numpy(), own.stop - own.start
        row_at = np.full(n_own, -1, dtype=np.int32)
        row_at[place] = np.arange(len(place), dtype=np.int32)
        degrees = np.zeros(n_own, dtype=np.int32)
        degrees[place] = np.diff(indptr)
        order = np.lexsort((-degrees, np.arange(n_own) // _WINDOW))
        rows, degrees = (order + own.start).astype(np.int32), degrees[order]
        widths = degrees.reshape(-1, LANES).max(axis=1)
        starts = np.concatenate([[0], np.cumsum(widths.astype(np.int64) * LANES)])
        columns = np.empty(starts[-1], dtype=np.int32)
        weights = edge_weights[:1].copy() if problem.is_uniform else np.empty(starts[-1], dtype=np.float32)
        matrix = indptr, graph.indices.numpy(), edge_weights
        workers.parallel_for(_fill, len(widths), rows, starts, row_at[order], slot_of, *matrix, columns, weights)
        return cls(rows, degrees.astype(np.float32), starts, columns, weights)


@cached_njit(nogil=True)
def _fill(first, last, rows, starts, sources, slot_of, indptr, indices, edge_weights, columns, weights):
    """Write the slices [first, last): the edges of their rows in the graph, −1 where a slot is empty."""
    weighted = len(weights) == len(columns)
    for s in range(first, last):
        width = (starts[s + 1] - starts[s]) // LANES
        for v in range(LANES):
            source, place = sources[s * LANES + v], starts[s] + v
            begin = indptr[source] if source >= 0 else 0
            degree = indptr[source + 1] - begin if source >= 0 else 0
            for e in range(width):
                columns[place] = slot_of[indices[begin + e]] if e < degree else rows[s * LANES + v]
                if weighted:
                    weights[place] = edge_weights[begin + e] if e < degree else 0
                place += LANES
