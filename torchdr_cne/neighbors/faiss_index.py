"""Neighbours by a flat FAISS index or by inverted lists, of which FAISS or compiled code probes as many as needed."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchdr_cne._compiler import explained, numba_works
from torchdr_cne._optional import import_optional
from torchdr_cne.neighbors import exact
from torchdr_cne.neighbors.distances import drop_self, nearest_first, ordered_form, pair_distances
from torchdr_cne.storable import Storable

_FLAT_BELOW = 16_384
_CALIBRATION_ROWS = 256
_FIRST_PROBES = 4
_SEARCH_BLOCK = 1 << 17
_SLACK = 4
"""Extra candidates of the flat index, so that rounding errors of its matrix products cannot lose a neighbour."""
_RESOLVED = 2.0**-15
"""Squared distances below this fraction of a row's squared norm are lost in float32 products of the flat index."""


@dataclass(frozen=True, kw_only=True)
class FaissConfig(Storable):
    """Settings of the approximate search; every field has a working default.

    Attributes
    ----------
    recall : float, default=0.99
        Fraction of the true neighbours to find; as many lists are probed as reach it on a sample of rows for which
        the exact neighbours are computed.
    n_lists : int, default=None
        Number of inverted lists; 0 is the exact flat index. None is 4√n rounded to a power of two, 0 for few rows.
    n_probes : int, default=None
        Number of lists searched per query; None takes as many as ``recall`` needs.
    """

    recall: float = 0.99
    n_lists: int | None = None
    n_probes: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.recall <= 1:
            raise ValueError(f"recall={self.recall} must lie in (0, 1].")
        if self.n_lists is not None and self.n_lists < 0:
            raise ValueError(f"n_lists={self.n_lists} must be at least 0; 0 asks for the flat index.")
        if self.n_probes is not None and self.n_probes < 1:
            raise ValueError(f"n_probes={self.n_probes} must be at least 1.")


def search(
    prepared: Tensor, queries: Tensor, n_neighbors: int, metric: str, config: FaissConfig, seed: int
) -> tuple[Tensor, Tensor]:
    """Return ids (q, k) and distances (q, k) of the nearest other rows."""
    host = prepared.detach().cpu()
    columns = ordered_form(host, metric).float().contiguous()
    n = host.shape[0]
    n_lists = default_lists(n) if config.n_lists is None else min(config.n_lists, n)
    where = queries.cpu()
    # Lists for the city-block distance would need medians as centroids.
    if n_lists == 0 or metric == "manhattan" or config.recall == 1.0:
        ids, distances = _search_flat(host, columns, where, n_neighbors, metric)
    else:
        ids, keys = _search_lists(columns, where, n_neighbors, n_lists, config, seed)
        distances = keys.div_(2) if metric == "cosine" else keys.sqrt_()
        if metric == "cosine":  # all-zero rows are at distance 1 from all rows, including each other
            distances[(host[where] == 0).all(dim=1)] = 1.0
        again = torch.nonzero(torch.isinf(distances[:, -1])).squeeze(1)
        if len(again):
            found = exact.search(host, where[again], n_neighbors, metric)
            ids[again], distances[again] = found[0].to(ids.dtype), found[1].to(distances.dtype)
    return ids.to(prepared.device), distances.to(prepared.device)


@contextmanager
def _faiss_with_threads() -> Iterator[Any]:
    """Yield FAISS, which uses as many threads as torch within the block."""
    faiss = import_optional("faiss", "backend='faiss'")
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(torch.get_num_threads())
    try:
        yield faiss
    finally:
        faiss.omp_set_num_threads(before)


def _search_flat(host: Tensor, columns: Tensor, where: Tensor, n_neighbors: int, metric: str) -> tuple[Tensor, Tensor]:
    """Return the nearest of all rows; queries that float32 matrix products cannot resolve are searched exactly."""
    n = len(columns)
    query_rows = columns[where]
    n_candidates = min(n - 1, n_neighbors + _SLACK)
    with _faiss_with_threads() as faiss:
        index = faiss.IndexFlat(columns.shape[1], faiss.METRIC_L1 if metric == "manhattan" else faiss.METRIC_L2)
        index.add(columns.numpy())
        found = torch.from_numpy(index.search(query_rows.numpy(), n_candidates + 1)[1])
    ids, distances = _ranked(host, where, drop_self(found, where, n_candidates), metric)
    ids, distances = ids[:, :n_neighbors].contiguous(), distances[:, :n_neighbors].contiguous()
    doubtful = torch.isinf(distances[:, -1])
    if metric != "manhattan":
        doubtful |= _drowned(query_rows, distances[:, -1], metric)
    again = torch.nonzero(doubtful).squeeze(1)
    if len(again):
        ids[again], distances[again] = exact.search(host, where[again], n_neighbors, metric)
    return ids, distances


def _search_lists(
    columns: Tensor, where: Tensor, n_neighbors: int, n_lists: int, config: FaissConfig, seed: int
) -> tuple[Tensor, Tensor]:
    """Return the nearest rows in as many of the nearest inverted lists as the recall needs.

    Ids (q, k) are int32 and squared distances (q, k) float32; they are −1 and infinity if too few were found.
    """
    if not numba_works():
        return _search_faiss_lists(columns, where, n_neighbors, n_lists, config, seed)
    from torchdr_cne.neighbors.probing import search as search_compiled

    rows, queries = columns.numpy(), where.numpy().astype(np.int32)
    with explained("the neighbour search"):
        ids, keys = search_compiled(rows, queries, n_neighbors, n_lists, config.n_probes, config.recall, seed)
    return torch.from_numpy(ids), torch.from_numpy(keys)


def _search_faiss_lists(
    columns: Tensor, where: Tensor, n_neighbors: int, n_lists: int, config: FaissConfig, seed: int
) -> tuple[Tensor, Tensor]:
    """Return the result of `_search_lists`, computed by FAISS."""
    sample = where[torch.randperm(len(where), generator=torch.Generator().manual_seed(seed))[:_CALIBRATION_ROWS]]
    with _faiss_with_threads() as faiss:
        index = _list_index(faiss, columns, n_lists, seed)
        index.nprobe = index.nlist
        farthest = _nearest_in_lists(index, columns, sample, n_neighbors)[1][:, -1:]
        index.nprobe = min(_FIRST_PROBES if config.n_probes is None else config.n_probes, index.nlist)
        while config.n_probes is None and index.nprobe < index.nlist:
            keys = _nearest_in_lists(index, columns, sample, n_neighbors)[1]
            # A neighbour as near as the true last one counts, as duplicates have no order.
            if float((keys <= farthest * (1 + 1e-6)).double().mean()) >= config.recall:
                break
            index.nprobe = min(2 * index.nprobe, index.nlist)
        return _nearest_in_lists(index, columns, where, n_neighbors)


def _nearest_in_lists(index: Any, columns: Tensor, where: Tensor, n_neighbors: int) -> tuple[Tensor, Tensor]:
    """Return ids (q, k) int32 and squared distances (q, k) of the nearest other rows in the probed lists."""
    ids = torch.empty((len(where), n_neighbors), dtype=torch.int32)
    keys = torch.empty((len(where), n_neighbors), dtype=torch.float32)
    for start in range(0, len(where), _SEARCH_BLOCK):
        block = where[start : start + _SEARCH_BLOCK].numpy()
        found_keys, found = index.search(columns.numpy()[block], n_neighbors + 1)
        # Exactly one column of each row is removed: the row itself or, if it was not found, the farthest.
        unwanted = found == block[:, None]
        unwanted[~unwanted.any(axis=1), -1] = True
        shape = (len(block), n_neighbors)
        ids[start : start + len(block)] = torch.from_numpy(found[~unwanted].reshape(shape).astype(np.int32))
        keys[start : start + len(block)] = torch.from_numpy(found_keys[~unwanted].reshape(shape))
    return ids, keys.masked_fill_(ids < 0, torch.inf)


def _ranked(host: Tensor, where: Tensor, candidates: Tensor, metric: str) -> tuple[Tensor, Tensor]:
    """Return candidates sorted by distance; missing ones (−1) are infinitely far."""
    distances = pair_distances(host, host[where], candidates.clamp_min(0), metric)
    return nearest_first(candidates, distances.masked_fill_(candidates < 0, torch.inf))


def _drowned(query_rows: Tensor, farthest: Tensor, metric: str) -> Tensor:
    """Return which rows have neighbours that are too close, relative to their norms, for float32 matrix products."""
    squares = 2 * farthest if metric == "cosine" else farthest.square()
    return squares < _RESOLVED * query_rows.double().square().sum(dim=1)


def default_lists(n: int) -> int:
    """Return the default number of inverted lists for n rows; 0 means none."""
    return 0 if n < _FLAT_BELOW else suitable_lists(n)


def suitable_lists(n: int) -> int:
    """Return a suitable number of inverted lists for n rows, 4√n rounded to a power of two."""
    return 2 ** round(math.log2(n) / 2 + 2)


def _list_index(faiss: Any, columns: Tensor, n_lists: int, seed: int) -> Any:
    quantizer = faiss.IndexFlat(columns.shape[1], faiss.METRIC_L2)
    index = faiss.IndexIVFFlat(quantizer, columns.shape[1], n_lists, faiss.METRIC_L2)
    index.cp.seed = seed % (2**31)
    index.cp.niter = 4
    index.cp.min_points_per_centroid = 1
    index.cp.max_points_per_centroid = 32
    index.train(columns.numpy())
    index.add(columns.numpy())
    index.own_fields = True
    quantizer.this.disown()
    return index
