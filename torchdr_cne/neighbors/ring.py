"""Neighbours among the rows of all ranks, or of a file, where no process ever holds or indexes all rows.

Every rank indexes its own rows, one chunk at a time if they stay in a file. Its rows then travel as queries round the
ring of ranks, block by block and with the nearest rows found so far, and return with the nearest of all.
"""

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from torchdr_cne.inputs import Rows
from torchdr_cne.neighbors.distances import merged, prepare
from torchdr_cne.neighbors.faiss_index import FaissConfig, default_lists
from torchdr_cne.neighbors.row_index import RowIndex, searches_lists
from torchdr_cne.workers import Workers

_BLOCK = 1 << 14
"""Number of rows that travel together."""
_COPIES = 3
"""Copies of a chunk in memory: the rows as they are read, in lists, and while they are sorted into these."""
_SAMPLE = 768
_EXACT = FaissConfig(n_lists=0)


def search(rows: Rows, n_neighbors: int, metric: str, config: FaissConfig, seed: int) -> tuple[Tensor, Tensor]:
    """Return ids (m, k) int64 and distances (m, k) of the other rows, among all, nearest to this rank's rows."""
    share = rows.share
    ends, sizes = _chunks(rows), np.diff(share.bounds)
    smallest = int(min(sizes)) // (len(ends) - 1)  # the same on all ranks, so that they decide alike
    n_lists = default_lists(smallest) if config.n_lists is None else config.n_lists
    if not searches_lists(n_lists, metric, config):
        config = _EXACT
    sample = None if config is _EXACT or config.n_probes is not None else sample_of(rows, metric, seed)
    dtype = torch.float64 if config is _EXACT else torch.float32
    ids = torch.full((len(share), n_neighbors), -1, dtype=torch.int64)
    distances = torch.full(ids.shape, torch.inf, dtype=dtype)
    with Workers() as workers:
        for first, last in pairwise(ends):
            with share.ranks.all_or_none("the indexing of rows"):
                chunk = RowIndex(rows.block(first, last), n_neighbors, metric, share.start + first)
                if config is not _EXACT:
                    chunk.put_in_lists(config, sample, seed, workers)
            for start in range(0, int(max(sizes)), _BLOCK):
                block = slice(start, max(start, min(start + _BLOCK, len(share))))
                ids[block], distances[block] = _travel(rows, block, chunk, (ids[block], distances[block]))
    return ids, distances


def _chunks(rows: Rows) -> list[int]:
    """Return the bounds of chunks of this rank's rows; all ranks have equally many chunks."""
    if rows.in_memory:
        return [0, len(rows.share)]
    most = max(np.diff(rows.share.bounds))
    held = rows.budget // (_COPIES * rows.n_columns * rows.values.itemsize)  # type: ignore[attr-defined]  # streamed rows have one
    n_chunks = -(-int(most) // max(1, held))
    return np.linspace(0, len(rows.share), n_chunks + 1).astype(int).tolist()


def _travel(rows: Rows, block: slice, chunk: RowIndex, found: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Send a block of rows to the chunks of all ranks; return the nearest of these and of those ``found`` before."""
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


def sample_of(rows: Rows, metric: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a few rows of all ranks, the same ones on each rank, with their numbers."""
    share = rows.share
    chosen = np.sort(np.random.default_rng(seed % 2**63).choice(share.n, min(share.n, _SAMPLE), replace=False))
    own = chosen[(chosen >= share.start) & (chosen < share.stop)] - share.start
    picked = [rows.block(int(row), int(row) + 1) for row in own]
    mine = torch.cat([*picked, rows.values[:0]])
    n_ranks = share.ranks.size
    everyone = share.ranks.exchange(mine.repeat(n_ranks, 1), [len(mine)] * n_ranks, "the sample of rows")
    return prepare(everyone, metric).cpu().numpy(), chosen
