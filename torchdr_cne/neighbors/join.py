"""Passes that improve a neighbour graph by comparing neighbours of neighbours (Dong, Moses & Li, 2011)."""

import numpy as np

from torchdr_cne.neighbors import join_kernels
from torchdr_cne.neighbors.lists import whole_lines
from torchdr_cne.simd import LANES
from torchdr_cne.workers import Workers


class JoinedGraph:
    """A neighbour graph with its points in list order, so that neighbours are close together in memory.

    Points are independent of each other within a pass, so its result does not depend on the number of threads.

    Parameters
    ----------
    X : ndarray of shape (n, f), float32
        The rows.
    order : ndarray of shape (n,), int32
        All row numbers, with near rows next to each other.
    ids, keys : ndarray of shape (n, k), int32 and float32
        Row numbers of the neighbours, nearest first, and squared distances; −1 and infinity if there are too few.
    workers : Workers
        Threads that share the work.
    """

    def __init__(self, X: np.ndarray, order: np.ndarray, ids: np.ndarray, keys: np.ndarray, workers: Workers) -> None:
        n, f = X.shape
        self._order, self._workers = order, workers
        self._position = np.empty(n, dtype=np.int32)
        self._position[order] = np.arange(n, dtype=np.int32)
        self._rows = whole_lines((n, -(-f // LANES) * LANES))
        self._ids, self._keys = np.empty_like(ids), np.empty_like(keys)
        copies = (self._rows, self._ids, self._keys)
        workers.parallel_for(join_kernels.in_order, n, X, order, self._position, ids, keys, *copies)

    def improve(self) -> None:
        """Improve the graph in one pass, in which no list gets worse."""
        n = len(self._ids)
        listed_by = np.empty_like(self._ids)
        # Every range reads all points, so there is only one range per thread.
        self._workers.parallel_for(
            join_kernels.reverse, n, self._ids, listed_by, multiple_of=-(-n // self._workers.n_threads)
        )
        new_ids = self._ids.copy()
        self._workers.parallel_for(join_kernels.join, n, self._rows, self._ids, listed_by, new_ids, self._keys)
        self._ids = new_ids

    def keys_of(self, rows: np.ndarray) -> np.ndarray:
        """Return the squared distances of the neighbours of some rows."""
        return self._keys[self._position[rows]]

    def write_to(self, ids: np.ndarray, keys: np.ndarray) -> None:
        """Write the graph with row numbers, by which ties are sorted."""
        self._workers.parallel_for(join_kernels.back, len(ids), self._order, self._ids, self._keys, ids, keys)
