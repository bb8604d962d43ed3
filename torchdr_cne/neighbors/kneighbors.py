"""The function for neighbour search, which checks its input, chooses a backend and restores the unit."""

import numbers
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchdr_cne.devices import on_cpu
from torchdr_cne.distributed import Share
from torchdr_cne.inputs import Rows, as_rows, read_table
from torchdr_cne.neighbors import device_lists, device_search, exact, faiss_index, keops, ring
from torchdr_cne.neighbors.distances import METRICS, prepare
from torchdr_cne.neighbors.faiss_index import FaissConfig, suitable_lists
from torchdr_cne.neighbors.graph import NeighborGraph
from torchdr_cne.neighbors.row_index import RowIndex, searches_lists
from torchdr_cne.workers import Workers

Backend = str | FaissConfig
BACKENDS = ("auto", "torch", "keops", "faiss")
_LISTS_OF = {"auto": None, "faiss": None, "torch": 0, "keops": 0}
"""`FaissConfig.n_lists` for the rows of each rank: None is a suitable number, and 0 is an exact search."""
EXACT_BELOW = 4096
"""With ``backend="auto"``, fewer rows than this are searched exactly, which takes less time than an index."""
EXACT_ON_DEVICE = 150_000
"""Number of rows up to which they are searched exactly on a device that is not the CPU."""
_INDEX_SEED = 0


def kneighbors(
    X: Any,
    n_neighbors: int,
    *,
    metric: str = "euclidean",
    backend: Backend = "auto",
    rows: Any = None,
    device: str | torch.device = "auto",
    random_state: int = 0,
) -> NeighborGraph:
    """Return the nearest other points of each row.

    Parameters
    ----------
    X : array-like or Tensor of shape (n, f)
        Finite real numbers.
    n_neighbors : int
        Number of *other* points for each row. If there are fewer than ``n_neighbors + 1`` rows, all others are
        returned, with one warning.
    metric : {"euclidean", "cosine", "manhattan"}, default="euclidean"
        Distance between rows. Cosine is 1 − cos; an all-zero row is at distance 1 from every row.
    backend : {"auto", "torch", "keops", "faiss"} or FaissConfig, default="auto"
        "torch" and "keops" are exact; "faiss" meets a recall target, 0.99 unless a `FaissConfig` sets another. "auto"
        is an exact search for fewer than 4 096 rows, and "faiss" otherwise; on a device that is not the CPU it is an
        exact search there for up to 150 000 rows, and meets a recall of 0.99 there otherwise. "faiss" always computes
        on the CPU.
    rows : array-like of int, default=None
        Numbers of the rows whose neighbours, among all rows, are returned; None is every row.
    device : str or torch.device, default="auto"
        Device on which torch and KeOps compute; "auto" is the device of a tensor, or else the CPU.
    random_state : int, default=0
        Seed of the clustering for "faiss", and of the sample on which the recall is measured.

    Returns
    -------
    NeighborGraph
        ``indices`` (q, k) int32 and ``distances`` (q, k) float32, nearest first and ties in the order of the ids;
        distances are float64 if the scale of the data is outside the range of float32.

    Raises
    ------
    ValueError
        If the metric or backend is unknown, the data are not a finite table, row numbers do not exist, or
        ``n_neighbors`` is not an integer >= 1.
    """
    found_rows = as_rows(read_table(X), center=metric != "cosine")
    if str(device) != "auto":
        found_rows = Rows(found_rows.values.to(device), found_rows.scale)
    return neighbors_of_rows(
        found_rows, n_neighbors, metric=metric, backend=backend, queries=rows, random_state=random_state
    )


def neighbors_of_rows(
    rows: Rows,
    n_neighbors: int,
    *,
    metric: str,
    backend: Backend,
    queries: Any = None,
    random_state: int = 0,
) -> NeighborGraph:
    """Return the result of `kneighbors` for rows that are already checked, centred and scaled."""
    n = rows.n_points
    n_neighbors = _check_request(n, n_neighbors, metric, backend)
    if rows.share.ranks.size > 1 or not rows.in_memory:
        found = ring.search(rows, n_neighbors, metric, _list_config(backend), random_state)
        return _in_unit(*found, rows, metric)
    prepared = prepare(rows.values, metric)
    query_ids = _query_ids(queries, n).to(prepared.device)
    if backend in ("auto", "torch") and not on_cpu(prepared):
        in_lists = backend == "auto" and queries is None and n > EXACT_ON_DEVICE and metric != "manhattan"
        if in_lists:
            ids, distances = device_lists.search(prepared, n_neighbors, metric, FaissConfig().recall, random_state)
        else:
            ids, distances = device_search.search(prepared, query_ids, n_neighbors, metric)
    elif isinstance(backend, FaissConfig) or backend == "faiss" or (backend == "auto" and n >= EXACT_BELOW):
        config = backend if isinstance(backend, FaissConfig) else FaissConfig()
        ids, distances = faiss_index.search(prepared, query_ids, n_neighbors, metric, config, random_state)
    else:
        # KeOps cannot reduce over zero rows.
        search = keops.search if backend == "keops" and len(query_ids) else exact.search
        ids, distances = search(prepared, query_ids, n_neighbors, metric)
    return _in_unit(ids, distances, rows, metric)


def index_of_rows(rows: Rows, n_neighbors: int, *, metric: str, backend: Backend) -> RowIndex:
    """Return an index of rows in memory, to be searched for other rows; it meets the recall target, or is exact."""
    config = _list_config(backend)
    n_lists = config.n_lists
    if n_lists is None:
        n_lists = suitable_lists(rows.n_points) if rows.n_points >= EXACT_BELOW else 0
    index = RowIndex(rows.values, n_neighbors, metric)
    if searches_lists(n_lists, metric, config):
        sample = None if config.n_probes is not None else ring.sample_of(rows, metric, _INDEX_SEED)
        with Workers() as workers:
            index.put_in_lists(config, sample, _INDEX_SEED, workers)
    return index


def neighbors_of_others(index: RowIndex, rows: Rows, others: Tensor) -> NeighborGraph:
    """Return the neighbours among the indexed rows of ``others`` (q, f), which are centred and scaled alike."""
    visitors = prepare(others, index.metric).cpu()
    with Workers() as workers:
        found = index.using(workers).nearest(visitors, torch.full((len(others),), -1))
    return _in_unit(*found, rows, index.metric)


def _list_config(backend: Backend) -> FaissConfig:
    return backend if isinstance(backend, FaissConfig) else FaissConfig(n_lists=_LISTS_OF[backend])


def _in_unit(ids: Tensor, distances: Tensor, rows: Rows, metric: str) -> NeighborGraph:
    """Return the graph with the distances between the rows of the caller."""
    unit = rows.scale if metric != "cosine" else 1.0
    id_dtype = torch.int32 if rows.n_points < 2**31 else torch.int64
    # Data beyond the range of float32 have distances beyond it.
    dtype = rows.values.dtype if 1e-30 < unit < 1e30 else torch.float64
    distances = (distances.to(torch.promote_types(distances.dtype, dtype)) / unit).to(dtype)
    share = rows.share if len(ids) == len(rows.share) else Share.whole(len(ids))  # there are only some queries
    return NeighborGraph(ids.to(id_dtype), distances, share)


def _query_ids(rows: Any, n: int) -> Tensor:
    """Return the requested row numbers, after checking them; None is all ``n``."""
    if rows is None:
        return torch.arange(n)
    ids = rows.detach().cpu().numpy() if isinstance(rows, Tensor) else np.asarray(rows)
    if ids.ndim != 1 or (ids.size and (ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() >= n)):
        raise ValueError(
            f"rows must be a 1-D array of row numbers from 0 to {n - 1}, got shape {ids.shape} and dtype "
            f"{ids.dtype}; turn a mask into numbers with numpy.flatnonzero."
        )
    return torch.from_numpy(ids.astype(np.int64))


def _check_request(n: int, n_neighbors: int, metric: str, backend: Backend) -> int:
    if metric not in METRICS:
        raise ValueError(f"metric={metric!r} is unknown; choose one of {METRICS}.")
    if not isinstance(backend, FaissConfig) and backend not in BACKENDS:
        raise ValueError(f"backend={backend!r} is unknown; choose one of {BACKENDS} or pass a FaissConfig.")
    if not isinstance(n_neighbors, numbers.Integral) or n_neighbors < 1:
        raise ValueError(f"n_neighbors={n_neighbors!r} must be an integer of at least 1.")
    if n_neighbors >= n:
        warnings.warn(
            f"n_neighbors={n_neighbors} needs more than {n_neighbors} samples, got {n}; "
            f"all {n - 1} other points are used.",
            UserWarning,
            stacklevel=2,
        )
    return min(int(n_neighbors), n - 1)
