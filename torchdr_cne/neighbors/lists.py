"""Inverted lists from k-means on a sample of rows; each row is in the list of its nearest centroid."""

import math
from copy import copy

import numpy as np

from torchdr_cne.neighbors import list_kernels
from torchdr_cne.neighbors.scan import Lists, by_list
from torchdr_cne.simd import LANES
from torchdr_cne.workers import Workers

_FLAT_CENTROIDS = 128
"""Number of centroids up to which all are compared with every row; more are themselves put into lists."""
_ROUNDS = 3
_ROWS_PER_CENTROID = 16
_GROUPS_ASSIGNING = 4
_ASSIGNED = 64
_LARGEST = 16
"""Bound of the length of a list, as a multiple of the mean, as equal rows would all be in one list."""


class CentroidTree:
    """Centroids in groups of near ones, so that those nearest to a row are found without comparing all.

    Parameters
    ----------
    centroids : ndarray of shape (n_lists, f), float32
        One centroid for each list.
    generator : numpy.random.Generator
        Source of the first middles of the groups.
    workers : Workers
        Threads that share the work.

    Attributes
    ----------
    levels : (Lists, Lists)
        The middles of the groups in one list, and the centroids in a list for each group.
    order : ndarray of shape (n_lists,), int32
        Numbers of the centroids, with near ones next to each other.
    """

    def __init__(self, centroids: np.ndarray, generator: np.random.Generator, workers: Workers) -> None:
        self.centroids = centroids
        self._workers = workers
        n = len(centroids)
        n_groups = 1 if n <= _FLAT_CENTROIDS else 2 ** round(math.log2(n) / 2)
        group, middles = np.zeros(n, dtype=np.int32), centroids[:1]
        if n_groups > 1:
            middles = k_means(centroids, n_groups, generator, workers)
            group = CentroidTree(middles, generator, workers).assign(centroids)
        in_one = np.zeros(n_groups, dtype=np.int32)
        self._arrays = (
            inverted_lists(middles, in_one, 1, workers)[0],
            *inverted_lists(centroids, group, n_groups, workers),
        )

    def using(self, workers: Workers) -> "CentroidTree":
        """Return this tree with other workers."""
        other = copy(self)
        other._workers = workers
        return other

    @property
    def order(self) -> np.ndarray:
        """Numbers of the lists, with near ones next to each other."""
        return self._arrays[2]

    @property
    def levels(self) -> tuple[Lists, Lists]:
        """The middles of the groups in one list, and the centroids in a list for each group."""
        return self._arrays[:2]

    def n_groups(self, n_probes: int) -> int:
        """Return the number of groups in which the ``n_probes`` nearest centroids are searched for."""
        n_groups = len(self.levels[1].offsets) - 1
        return min(n_groups, n_groups // 4 + 8 + 2 * n_probes * n_groups // len(self.centroids))

    def assign(self, X: np.ndarray, members: np.ndarray | None = None) -> np.ndarray:
        """Return the list of the nearest centroid of each row, or of the ``members`` among them, int32."""
        members = np.arange(len(X), dtype=np.int32) if members is None else members
        home = np.empty(len(members), dtype=np.int32)
        n_groups = min(_GROUPS_ASSIGNING, len(self.levels[1].offsets) - 1)
        self._workers.parallel_for(
            list_kernels.assign, len(members), X, members, self.levels, n_groups, 1, home, multiple_of=64
        )
        return home


def k_means(X: np.ndarray, n_lists: int, generator: np.random.Generator, workers: Workers) -> np.ndarray:
    """Return ``n_lists`` centroids (n_lists, f) from a few rounds of k-means on a sample of the rows."""
    n_members = min(len(X), _ROWS_PER_CENTROID * n_lists)
    members = generator.choice(len(X), n_members, replace=False).astype(np.int32)
    centroids = X[members[:n_lists]]
    members.sort()
    for _ in range(_ROUNDS):
        home = CentroidTree(centroids, generator, workers).assign(X, members)
        totals, counts = np.zeros(centroids.shape), np.zeros(n_lists, dtype=np.int64)
        list_kernels.add_up(X, members, home, totals, counts)
        counts = counts[:, None]
        centroids = np.where(counts > 0, totals / np.maximum(counts, 1), centroids).astype(np.float32)
    return centroids


def inverted_lists(X: np.ndarray, home: np.ndarray, n_lists: int, workers: Workers) -> tuple[Lists, np.ndarray]:
    """Return lists of the rows, given the list ``home`` (n,) of each row, and the row numbers in list order."""
    order, starts = by_list(home[:, None], 0, 1, n_lists)
    offsets = np.concatenate([[0], np.cumsum(-(-np.diff(starts) // LANES))])
    points = whole_lines((offsets[-1], X.shape[1], LANES))
    ids = np.empty((offsets[-1], LANES), dtype=np.int32)
    workers.parallel_for(list_kernels.pack, n_lists, X, order, starts, offsets, points, ids)
    return Lists(offsets, points, ids), order


def whole_lines(shape: tuple[int, ...]) -> np.ndarray:
    """Return an empty float32 array that begins with a cache line, so that no vector crosses two."""
    line = 64
    memory = np.empty(4 * math.prod(map(int, shape)) + line, dtype=np.uint8)
    start = -memory.ctypes.data % line
    return memory[start : len(memory) - line + start].view(np.float32).reshape(shape)


def clustered(
    X: np.ndarray, n_lists: int, generator: np.random.Generator, workers: Workers
) -> tuple[CentroidTree, np.ndarray]:
    """Return the centroids of about ``n_lists`` lists, and the list of each row; near lists have near numbers."""
    tree = CentroidTree(k_means(X, n_lists, generator, workers), generator, workers)
    number = np.empty(n_lists, dtype=np.int32)
    number[tree.order] = np.arange(n_lists)
    parents, home = _cut(number[tree.assign(X)], n_lists)
    return CentroidTree(tree.centroids[tree.order][parents], generator, workers), home


def _cut(home: np.ndarray, n_lists: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut lists that are too long; return the old list that contains each new one, and the new list of each row."""
    largest = max(LANES, _LARGEST * len(home) // n_lists)
    order, starts = by_list(home[:, None], 0, 1, n_lists)
    n_parts = np.maximum(1, -(-np.diff(starts) // largest))
    parents = np.repeat(np.arange(n_lists), n_parts)
    if len(parents) == n_lists:
        return parents, home
    first_part = np.cumsum(n_parts) - n_parts
    sorted_home = home[order]
    home = np.empty_like(home)
    home[order] = first_part[sorted_home] + (np.arange(len(home)) - starts[sorted_home]) // largest
    return parents, home
