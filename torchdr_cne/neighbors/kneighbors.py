"""The one door to neighbour search: checks, the choice of a backend, units."""

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchdr_cne.inputs import Rows, as_rows, check_finite
from torchdr_cne.neighbors import exact, faiss_index, keops
from torchdr_cne.neighbors.distances import METRICS, prepare
from torchdr_cne.neighbors.faiss_index import FaissConfig
from torchdr_cne.neighbors.graph import NeighborGraph

Backend = str | FaissConfig
BACKENDS = ("auto", "torch", "keops", "faiss")
EXACT_BELOW = 4096
"""With ``backend="auto"``, fewer rows than this are searched exactly: it costs less than building an index."""


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
    """Find the nearest other points of each row.

    Parameters
    ----------
    X : array-like or Tensor of shape (n, f)
        Finite real numbers.
    n_neighbors : int
        Number of *other* points a row gets. With fewer than ``n_neighbors + 1`` rows all others are
        returned, with one warning.
    metric : {"euclidean", "cosine", "manhattan"}, default="euclidean"
        Cosine is 1 − cos; an all-zero row is at distance 1 from every row.
    backend : {"auto", "torch", "keops", "faiss"} or FaissConfig, default="auto"
        "torch" and "keops" are exact; "faiss" meets a recall target, 0.98 unless a `FaissConfig` says
        otherwise. "auto" is exact below 4 096 rows and FAISS above.
    rows : array-like of int, default=None
        Query only these rows (against all); None queries every row.
    device : str or torch.device, default="auto"
        Where torch and KeOps compute; "auto" is a tensor's own device, the CPU otherwise.
    random_state : int, default=0
        Seeds the FAISS clustering and its recall measurement.

    Returns
    -------
    NeighborGraph
        ``indices`` (q, k) int32 and ``distances`` (q, k) float32, nearest first, ties by id.

    Raises
    ------
    ValueError
        For an unknown metric or backend, non-finite data or ``n_neighbors < 1``.
    """
    if not isinstance(X, Tensor):
        X = np.asarray(X)
    elif X.device.type == "cpu":
        X = X.detach().numpy()
    if X.ndim != 2 or X.shape[0] < 2:
        raise ValueError(f"X must have shape (n >= 2, f), got {tuple(X.shape)}; pass a table of rows.")
    check_finite(X)
    found_rows = as_rows(X, center=metric != "cosine")
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
    """Do `kneighbors`' work on rows that are already checked, centred and scaled."""
    n = len(rows)
    n_neighbors = _check_request(n, n_neighbors, metric, backend)
    prepared = prepare(rows.values, metric)
    query_ids = torch.as_tensor(
        np.arange(n) if queries is None else queries, dtype=torch.int64, device=prepared.device
    )
    if isinstance(backend, FaissConfig) or backend == "faiss" or (backend == "auto" and n >= EXACT_BELOW):
        config = backend if isinstance(backend, FaissConfig) else FaissConfig()
        ids, distances = faiss_index.search(prepared, query_ids, n_neighbors, metric, config, random_state)
    else:
        search = keops.search if backend == "keops" else exact.search
        ids, distances = search(prepared, query_ids, n_neighbors, metric)
    unit = rows.scale if metric != "cosine" else 1.0
    id_dtype = torch.int32 if n < 2**31 else torch.int64
    return NeighborGraph(ids.to(id_dtype), (distances / unit).to(prepared.dtype))


def _check_request(n: int, n_neighbors: int, metric: str, backend: Backend) -> int:
    if metric not in METRICS:
        raise ValueError(f"metric={metric!r} is unknown; choose one of {METRICS}.")
    if not isinstance(backend, FaissConfig) and backend not in BACKENDS:
        raise ValueError(f"backend={backend!r} is unknown; choose one of {BACKENDS} or pass a FaissConfig.")
    if n_neighbors < 1:
        raise ValueError(f"n_neighbors={n_neighbors} must be at least 1.")
    if n_neighbors >= n:
        warnings.warn(
            f"n_neighbors={n_neighbors} needs more than {n_neighbors} samples, got {n}; "
            f"all {n - 1} other points are used.",
            UserWarning,
            stacklevel=2,
        )
    return min(n_neighbors, n - 1)
