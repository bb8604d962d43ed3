"""Exact neighbours by symbolic KeOps reductions, which never store an (n, n) block."""

import contextlib
import io

from torch import Tensor

from torchdr_cne._optional import import_optional
from torchdr_cne.neighbors.distances import drop_self, nearest_first, ordered_form, pair_distances


def search(prepared: Tensor, queries: Tensor, n_neighbors: int, metric: str) -> tuple[Tensor, Tensor]:
    """Return ids (q, k) int64 and distances (q, k) float64 of the nearest other rows."""
    with contextlib.redirect_stdout(io.StringIO()):  # KeOps announces a missing GPU on import
        lazy_tensor = import_optional("pykeops.torch", "backend='keops'").LazyTensor
    columns = ordered_form(prepared, metric).contiguous()
    difference = lazy_tensor(columns[queries][:, None, :]) - lazy_tensor(columns[None, :, :])
    key = (difference.abs() if metric == "manhattan" else difference**2).sum(-1)
    with contextlib.redirect_stdout(io.StringIO()):  # and each compilation of a formula
        candidates = key.argKmin(n_neighbors + 1, dim=1)
    neighbors = drop_self(candidates, queries, n_neighbors)
    return nearest_first(neighbors, pair_distances(prepared, prepared[queries], neighbors, metric))
