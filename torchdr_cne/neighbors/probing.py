"""Search of inverted lists with as many probes as a recall target needs, measured on a sample of the queries."""

import math
from copy import copy

import numpy as np

from torchdr_cne.neighbors import list_kernels
from torchdr_cne.neighbors.join import JoinedGraph
from torchdr_cne.neighbors.list_kernels import Queries
from torchdr_cne.neighbors.lists import clustered, inverted_lists
from torchdr_cne.neighbors.scan import by_list
from torchdr_cne.workers import Workers

_SAMPLE = 512, 1024
"""Bounds of the number of queries that measure the recall, which is otherwise one in 256 rows."""
_BLOCK = 1024, 8192
"""Bounds of the queries per pass through the lists: many share the loading of a list, few keep all threads busy."""
_RANGE = 64
_FIRST_PROBES = 48
_MENDED, _MAX_PASSES = 4, 2
"""A first pass over the graph leaves about a quarter of the neighbours missed; a second pass adds few."""
_JOIN_COST = 16
"""Cost of a pass, in comparisons of a row with points, for each of its k² neighbours of neighbours."""
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
        Number of lists searched per query; None takes as many as ``recall`` needs.
    recall : float
        Fraction of the true neighbours to find.

    Returns
    -------
    ids : ndarray of shape (q, k), int32
        Nearest first, ties in the order of the ids; −1 if the probed lists hold too few points.
    keys : ndarray of shape (q, k), float32
        Squared distances; infinite if there are too few points.
    """
    with Workers() as workers:
        index = ListIndex(X, n_neighbors, n_lists, seed, workers)
        asked = index.some(queries)
        if n_probes is not None:
            return index.search(asked, n_probes)
        sample = index.generator.permutation(queries)[: sample_size(len(X))]
        return _search_to_recall(index, asked, index.some(sample), recall)


def sample_size(n: int) -> int:
    """Return the number of queries that measure the recall among n rows."""
    return min(max(n // 256, _SAMPLE[0]), _SAMPLE[1])


class ListIndex:
    """Inverted lists of the rows of X (n, f), float32, which can be searched; arguments are those of `search`."""

    def __init__(self, X: np.ndarray, n_neighbors: int, n_lists: int, seed: int, workers: Workers) -> None:
        self.X, self.n_neighbors, self.workers = X, n_neighbors, workers
        self.generator = np.random.default_rng(seed % 2**63)
        self.tree, self.home = clustered(X, n_lists, self.generator, workers)
        self.n_lists = len(self.tree.centroids)
        self.fill_lists()

    def fill_lists(self) -> None:
        """Put the rows into the lists."""
        self.lists, _ = inverted_lists(self.X, self.home, self.n_lists, self.workers)

    def using(self, workers: Workers) -> "ListIndex":
        """Return this index with other workers."""
        other = copy(self)
        other.workers, other.tree = workers, self.tree.using(workers)
        return other

    def some(self, rows: np.ndarray) -> Queries:
        """Return some of the indexed rows as queries."""
        return Queries(self.X, rows, rows)

    def search(self, queries: Queries, n_probes: int) -> tuple[np.ndarray, np.ndarray]:
        """Return ids and squared distances (q, k) of the nearest other rows in the ``n_probes`` nearest lists."""
        n_queries, n_probes = len(queries.places), min(n_probes, self.n_lists)
        ids = np.empty((n_queries, self.n_neighbors), dtype=np.int32)
        keys = np.empty((n_queries, self.n_neighbors), dtype=np.float32)
        block = min(max(n_queries // 32, _BLOCK[0]), _BLOCK[1])
        effort = (self.tree.n_groups(n_probes), n_probes)
        arguments = (queries, self.order_of(queries), block, self.tree.levels, self.lists, *effort, keys, ids)
        self.workers.parallel_for(list_kernels.search, n_queries, *arguments, multiple_of=block)
        return ids, keys

    def order_of(self, queries: Queries) -> np.ndarray:
        """Return the numbers of the queries sorted by list, as queries of one list probe much the same lists."""
        are_rows = queries.rows is self.X
        home = self.home[queries.places] if are_rows else self.tree.assign(queries.rows, queries.places)
        return by_list(home[:, None], 0, 1, self.n_lists)[0]

    def probes_for(self, sample: Queries, recall: float) -> int:
        """Return the number of probes that find the fraction ``recall`` of the true neighbours of a sample."""
        farthest = self.farthest(sample)
        return enough_probes(self.recall_by_probes(sample, farthest, recall), recall)

    def farthest(self, sample: Queries) -> np.ndarray:
        """Return the squared distances of a sample to the last of its true neighbours."""
        farthest = np.empty(len(sample.places), dtype=np.float32)
        arguments = (sample, self.lists, self.n_neighbors, farthest)
        self.workers.parallel_for(list_kernels.farthest_neighbor, len(farthest), *arguments, multiple_of=_RANGE)
        return farthest

    def recall_by_probes(self, sample: Queries, farthest: np.ndarray, recall: float) -> np.ndarray:
        """Return the fraction of a sample's true neighbours found by 1, 2, … probes, until it reaches ``recall``."""
        n_probes = min(_FIRST_PROBES, self.n_lists)
        reached = self._found_share(sample, farthest, n_probes)
        while reached[-1] < recall and n_probes < self.n_lists:
            n_probes = min(2 * n_probes, self.n_lists)
            reached = self._found_share(sample, farthest, n_probes)
        return reached

    def _found_share(self, sample: Queries, farthest: np.ndarray, n_probes: int) -> np.ndarray:
        """Return the fraction found by 1 to ``n_probes`` probes, minus one standard error."""
        hits = np.empty((n_probes, len(farthest)), dtype=np.int32)
        effort = (self.tree.levels, self.lists, self.tree.n_groups(n_probes), self.n_neighbors)
        self.workers.parallel_for(
            list_kernels.hits_by_probes, len(farthest), sample, *effort, farthest, hits, multiple_of=_RANGE
        )
        shares = hits / self.n_neighbors
        return shares.mean(axis=1) - shares.std(axis=1) / math.sqrt(len(farthest))


def enough_probes(reached: np.ndarray, recall: float) -> int:
    """Return the smallest number of probes that reaches ``recall``, or the largest number if none does."""
    return int(np.argmax(reached >= recall)) + 1 if reached[-1] >= recall else len(reached)


def _search_to_recall(
    index: ListIndex, queries: Queries, sample: Queries, recall: float
) -> tuple[np.ndarray, np.ndarray]:
    """Search with as many probes as find the fraction ``recall``, or with fewer and with passes over the graph."""
    if len(sample.places) == 0:
        return index.search(queries, 1)
    farthest = index.farthest(sample)
    reached = index.recall_by_probes(sample, farthest, recall)
    enough, fewer = (enough_probes(reached, share) for share in (recall, 1 - _MENDED * (1 - recall)))
    spared = (enough - fewer) * len(index.X) / index.n_lists
    every_row = np.array_equal(queries.places, np.arange(len(index.X)))
    if spared > _JOIN_COST * index.n_neighbors**2 and every_row:
        ids, keys = index.search(queries, fewer)
        del index.lists  # makes room for the rows in another order
        graph = JoinedGraph(index.X, index.order_of(queries), ids, keys, index.workers)
        for _ in range(_MAX_PASSES):
            graph.improve()
            if (graph.keys_of(sample.places) <= farthest[:, None] * _ROUNDING).mean() >= recall:
                graph.write_to(ids, keys)
                return ids, keys
        index.fill_lists()
    return index.search(queries, enough)
