"""Search inverted lists with as many probes as a recall target needs, measured on a sample of the queries."""

import math

import numpy as np

from torchdr_cne.neighbors import list_kernels
from torchdr_cne.neighbors.join import JoinedGraph
from torchdr_cne.neighbors.lists import clustered, inverted_lists
from torchdr_cne.neighbors.scan import by_list
from torchdr_cne.workers import Workers

_SAMPLE = 512, 1024
"""Queries that measure the recall: one in 256, but not fewer than the first nor more than the second."""
_BLOCK = 1024, 8192
"""Queries that go through the lists together: many share a list's way from memory, few keep all threads busy."""
_RANGE = 64
_FIRST_PROBES = 48
_MENDED, _MAX_PASSES = 4, 2
"""A first pass over the graph leaves about a quarter of what the lists missed; a second mends little more."""
_JOIN_COST = 16
"""A pass costs as much as comparing with so many points for each of the k² neighbours of neighbours."""
_ROUNDING = 1 + 1e-6


def search(
    X: np.ndarray, queries: np.ndarray, n_neighbors: int, n_lists: int, n_probes: int | None, recall: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest other rows in the Euclidean distance.

    Parameters
    ----------
    X : ndarray of shape (n, f), float32
        C-contiguous rows.
    queries : ndarray of shape (q,), int32
        Numbers of the rows to search for.
    n_neighbors, n_lists, seed : int
        As in `FaissConfig`.
    n_probes : int or None
        Lists searched a query; None takes as many as ``recall`` needs.
    recall : float
        Share of the true neighbours to find.

    Returns
    -------
    ids : ndarray of shape (q, k), int32
        Nearest first, equal ones by id; −1 where the probed lists hold too few points.
    keys : ndarray of shape (q, k), float32
        Squared distances; infinite where too few.
    """
    generator = np.random.default_rng(seed % 2**63)
    with Workers() as workers:
        index = _Index(X, n_neighbors, n_lists, generator, workers)
        if n_probes is not None:
            return index.search(queries, n_probes)
        sample = generator.permutation(queries)[: min(max(len(X) // 256, _SAMPLE[0]), _SAMPLE[1])]
        return _search_to_recall(index, queries, sample, recall)


class _Index:
    """Lists of the rows of X, and what is searched for in them."""

    def __init__(
        self, X: np.ndarray, n_neighbors: int, n_lists: int, generator: np.random.Generator, workers: Workers
    ) -> None:
        self.X, self.n_neighbors, self.workers = X, n_neighbors, workers
        self.tree, self.home = clustered(X, n_lists, generator, workers)
        self.n_lists = len(self.tree.centroids)
        self.fill_lists()

    def fill_lists(self) -> None:
        """Put the rows into the lists."""
        self.lists, _ = inverted_lists(self.X, self.home, self.n_lists, self.workers)

    def search(self, queries: np.ndarray, n_probes: int) -> tuple[np.ndarray, np.ndarray]:
        """Return ids and squared distances (q, k) of the nearest others in the ``n_probes`` nearest lists."""
        n_probes = min(n_probes, self.n_lists)
        ids = np.empty((len(queries), self.n_neighbors), dtype=np.int32)
        keys = np.empty((len(queries), self.n_neighbors), dtype=np.float32)
        block = min(max(len(queries) // 32, _BLOCK[0]), _BLOCK[1])
        effort = (self.tree.n_groups(n_probes), n_probes)
        arguments = (queries, self.order_of(queries), block, self.tree.levels, self.lists, *effort, keys, ids)
        self.workers.share(list_kernels.search, len(queries), self.X, *arguments, multiple_of=block)
        return ids, keys

    def order_of(self, queries: np.ndarray) -> np.ndarray:
        """Return places in ``queries``, those of a list together: they probe much the same lists."""
        return by_list(self.home[queries, None], 0, 1, self.n_lists)[0]

    def farthest(self, sample: np.ndarray) -> np.ndarray:
        """Return the squared distances to the last of the true neighbours."""
        farthest = np.empty(len(sample), dtype=np.float32)
        arguments = (self.X, sample, self.lists, self.n_neighbors, farthest)
        self.workers.share(list_kernels.farthest_neighbor, len(sample), *arguments, multiple_of=_RANGE)
        return farthest

    def recall_by_probes(self, sample: np.ndarray, farthest: np.ndarray, n_probes: int) -> np.ndarray:
        """Return the share of the sample's true neighbours found by 1, 2, … probes, less a standard error."""
        hits = np.empty((n_probes, len(sample)), dtype=np.int32)
        effort = (self.tree.levels, self.lists, self.tree.n_groups(n_probes), self.n_neighbors)
        arguments = (self.X, sample, *effort, farthest, hits)
        self.workers.share(list_kernels.hits_by_probes, len(sample), *arguments, multiple_of=_RANGE)
        shares = hits / self.n_neighbors
        return shares.mean(axis=1) - shares.std(axis=1) / math.sqrt(len(sample))


def _search_to_recall(
    index: _Index, queries: np.ndarray, sample: np.ndarray, recall: float
) -> tuple[np.ndarray, np.ndarray]:
    """Search with as many probes as find the share ``recall``, or with fewer and passes over the graph."""
    if len(sample) == 0:
        return index.search(queries, 1)
    farthest = index.farthest(sample)
    n_probes = min(_FIRST_PROBES, index.n_lists)
    reached = index.recall_by_probes(sample, farthest, n_probes)
    while reached[-1] < recall and n_probes < index.n_lists:
        n_probes = min(2 * n_probes, index.n_lists)
        reached = index.recall_by_probes(sample, farthest, n_probes)
    enough, fewer = (
        int(np.argmax(reached >= share)) + 1 if reached[-1] >= share else n_probes
        for share in (recall, 1 - _MENDED * (1 - recall))
    )
    spared = (enough - fewer) * len(index.X) / index.n_lists
    if spared > _JOIN_COST * index.n_neighbors**2 and np.array_equal(queries, np.arange(len(index.X))):
        ids, keys = index.search(queries, fewer)
        del index.lists  # room for the rows in another order
        graph = JoinedGraph(index.X, index.order_of(queries), ids, keys, index.workers)
        for _ in range(_MAX_PASSES):
            graph.improve()
            if (graph.keys_of(sample) <= farthest[:, None] * _ROUNDING).mean() >= recall:
                graph.write_to(ids, keys)
                return ids, keys
        index.fill_lists()
    return index.search(queries, enough)
