"""Exact neighbours in torch, blocked over the queries: the reference for the other backends."""

import torch
from torch import Tensor

from torchdr_cne.neighbors.distances import nearest_first, pair_distances

_BLOCK_ELEMENTS = 1 << 23
_SLACK = 4
"""Extra candidates kept by the matrix-product distances, so that rounding there cannot lose a neighbour."""


def search(prepared: Tensor, queries: Tensor, n_neighbors: int, metric: str) -> tuple[Tensor, Tensor]:
    """Return ids (q, k) int64 and distances (q, k) float64 of the nearest other rows.

    Candidates come from float64 matrix products, their distances and order from direct differences.
    """
    n = prepared.shape[0]
    n_candidates = min(n - 1, n_neighbors + _SLACK)
    columns = prepared if metric == "manhattan" else prepared.double()
    squares = columns.square().sum(dim=1)
    step = max(1, _BLOCK_ELEMENTS // n)
    ids, distances = [], []
    for start in range(0, len(queries), step):
        block = queries[start : start + step]
        key = _ordering_key(columns, squares, block, metric)
        key[torch.arange(len(block), device=key.device), block] = torch.inf
        candidates = key.topk(n_candidates, dim=1, largest=False, sorted=False).indices
        exact = pair_distances(prepared, block, candidates, metric)
        candidates, exact = nearest_first(candidates, exact)
        ids.append(candidates[:, :n_neighbors])
        distances.append(exact[:, :n_neighbors])
    return torch.cat(ids), torch.cat(distances)


def _ordering_key(columns: Tensor, squares: Tensor, block: Tensor, metric: str) -> Tensor:
    """Any increasing function of the distances from the ``block`` rows to all rows, (b, n)."""
    if metric == "manhattan":
        return torch.cdist(columns[block], columns, p=1)
    if metric == "cosine":
        return columns[block] @ -columns.T
    return torch.addmm(squares, columns[block], columns.T, alpha=-2)
