"""Neighbours among the rows of all ranks, or of a file: no process ever holds all rows, or an index of all.

Every rank indexes its own rows, a chunk at a time if they stay in a file. Its rows then travel round the ring of ranks
as queries, block by block, each with the nearest found so far, and come home with those of all.
"""

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchdr_cne._compiler import explained, numba_works
from torchdr_cne.inputs import Rows
from torchdr_cne.neighbors import exact
from torchdr_cne.neighbors.distances import merged, prepare
from torchdr_cne.neighbors.faiss_index import FaissConfig, default_lists
from torchdr_cne.workers import Workers

_BLOCK = 1 << 14
"""Rows that travel together."""
_COPIES = 3
"""Rows as they are read, in lists, and what is sorted on the way there."""
_SAMPLE = 768
_EXACT = FaissConfig(n_lists=0)


def search(rows: Rows, n_neighbors: int, metric: str, config: FaissConfig, seed: int) -> tuple[Tensor, Tensor]:
    """Return ids (m, k) int64 and distances (m, k) of the nearest other rows, among all, of this rank's rows."""
    share = rows.share
    ends, sizes = _chunks(rows), np.diff(share.bounds)
    smallest = int(min(sizes)) // (len(ends) - 1)  # what all ranks decide alike
    n_lists = default_lists(smallest) if config.n_lists is None else config.n_lists
    if n_lists == 0 or metric == "manhattan" or config.recall == 1.0 or not numba_works():
        config = _EXACT
    sample = None if config is _EXACT or config.n_probes is not None else _sample(rows, metric, seed)
    dtype = torch.float64 if config is _EXACT else torch.float32
    ids = torch.full((len(share), n_neighbors), -1, dtype=torch.int64)
    distances = torch.full(ids.shape, torch.inf, dtype=dtype)
    with Workers() as workers:
        for first, last in pairwise(ends):
            with share.ranks.agreed("the indexing of rows"):
                chunk = _Chunk(rows, range(first, last), n_neighbors, metric)
                if config is not _EXACT:
                    chunk.put_in_lists(config, sample, seed, workers)
            for start in range(0, int(max(sizes)), _BLOCK):
                block = slice(start, max(start, min(start + _BLOCK, len(share))))
                ids[block], distances[block] = _travel(rows, block, chunk, (ids[block], distances[block]))
    return ids, distances


def _chunks(rows: Rows) -> list[int]:
    """Return where chunks of this rank's rows begin and end, equally many on all ranks."""
    if rows.in_memory:
        return [0, len(rows.share)]
    most = max(np.diff(rows.share.bounds))
    held = rows.budget // (_COPIES * rows.n_columns * rows.values.itemsize)  # type: ignore[attr-defined]
    n_chunks = -(-int(most) // max(1, held))
    return np.linspace(0, len(rows.share), n_chunks + 1).astype(int).tolist()


def _travel(rows: Rows, block: slice, chunk: "_Chunk", found: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Take a block of rows to all ranks' chunks; return the nearest of these and of those ``found`` before."""
    share, n_ranks = rows.share, rows.share.ranks.size
    own = torch.arange(share.start + block.start, share.start + block.stop)
    queries = [prepare(rows.block(block.start, block.stop), chunk.metric).cpu(), own, *found]
    for hop in range(n_ranks):
        visitors, numbers, ids, distances = queries
        ids, distances = merged((ids, distances), chunk.nearest(visitors, numbers), ids.shape[1])
        before = (share.ranks.rank - hop - 1) % n_ranks
        coming = min(max(0, share.bounds[before + 1] - share.bounds[before] - block.start), _BLOCK)
        if hop < n_ranks - 1:
            queries = share.ranks.pass_on([visitors, numbers, ids, distances], coming, "the ring of neighbours")
        else:
            ids, distances = share.ranks.pass_on([ids, distances], coming, "the ring of neighbours")
    return ids, distances


def _sample(rows: Rows, metric: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a few rows of all ranks, the same on each, with their numbers."""
    share = rows.share
    chosen = np.sort(np.random.default_rng(seed % 2**63).choice(share.n, min(share.n, _SAMPLE), replace=False))
    own = chosen[(chosen >= share.start) & (chosen < share.stop)] - share.start
    picked = [rows.block(int(row), int(row) + 1) for row in own]
    mine = torch.cat([*picked, rows.values[:0]])
    n_ranks = share.ranks.size
    everyone = share.ranks.exchange(mine.repeat(n_ranks, 1), [len(mine)] * n_ranks, "the sample of rows")
    return prepare(everyone, metric).numpy(), chosen


class _Chunk:
    """Some consecutive rows of this rank, and an index of them; without lists, a search is exact."""

    def __init__(self, rows: Rows, members: range, n_neighbors: int, metric: str) -> None:
        self.metric, self._n_neighbors = metric, n_neighbors
        self._index: Any = None
        self._first = rows.share.start + members.start
        self._points = prepare(rows.block(members.start, members.stop), metric).cpu()

    def put_in_lists(
        self, config: FaissConfig, sample: tuple[np.ndarray, np.ndarray] | None, seed: int, workers: Workers
    ) -> None:
        """Index the rows; measure on a sample of all rows how many lists must be probed."""
        from torchdr_cne.neighbors.probing import ListIndex

        n = len(self._points)
        n_lists = default_lists(n) if config.n_lists is None else min(config.n_lists, n)
        with explained("the neighbour search"):
            points = _with_empty_marked(self._points, self.metric)
            self._index = ListIndex(points, self._n_neighbors, max(1, n_lists), seed, workers)
            if sample is None:
                self._n_probes = int(config.n_probes or 1)
            else:
                asked, numbers = map(torch.from_numpy, sample)
                self._n_probes = self._index.probes_for(self._queries(asked, self._here(numbers)), config.recall)

    def nearest(self, visitors: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Return row numbers and distances (q, k) of the nearest of the chunk; −1 and infinity where too few."""
        if len(visitors) == 0:
            nothing = torch.empty((0, self._n_neighbors))
            return nothing.long(), nothing
        known = self._here(numbers)
        if self._index is None:
            ids, distances = exact.search_rows(self._points, visitors, known, self._n_neighbors, self.metric)
        else:
            ids, distances = self._in_lists(visitors, known)
        return torch.where(ids >= 0, ids + self._first, -1), distances

    def _in_lists(self, visitors: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        found = self._index.search(self._queries(visitors, known), self._n_probes)
        ids, distances = torch.from_numpy(found[0]).long(), torch.from_numpy(found[1])
        distances = distances.div_(2) if self.metric == "cosine" else distances.sqrt_()
        if self.metric == "cosine":  # also from each other, all-zero rows are at distance 1
            distances[(visitors == 0).all(dim=1)] = 1.0
        again = torch.nonzero(ids[:, -1] < 0).squeeze(1)
        if len(again):
            rows, own = visitors[again], known[again]
            ids[again], exactly = exact.search_rows(self._points, rows, own, self._n_neighbors, self.metric)
            distances[again] = exactly.to(distances.dtype)
        return ids, distances

    def _here(self, numbers: Tensor) -> Tensor:
        """Return the chunk's numbers of rows, −1 for those of others."""
        here = numbers - self._first
        return torch.where((here >= 0) & (here < len(self._points)), here, -1)

    def _queries(self, rows: Tensor, known: Tensor) -> Any:
        from torchdr_cne.neighbors.list_kernels import Queries

        places = np.arange(len(rows), dtype=np.int32)
        return Queries(_with_empty_marked(rows, self.metric), places, known.numpy().astype(np.int32))


def _with_empty_marked(prepared: Tensor, metric: str) -> np.ndarray:
    """Return float32 rows with, for cosine, a coordinate that keeps all-zero rows away from the others."""
    if metric == "cosine":
        prepared = torch.cat([prepared, (prepared == 0).all(dim=1, keepdim=True).to(prepared.dtype)], dim=1)
    return prepared.float().contiguous().numpy()
