"""Exact neighbours in torch, blocked over the queries: the reference for the other backends."""

import torch
from torch import Tensor

from torchdr_cne.neighbors.distances import nearest_first, ordered_form, pair_distances

_BLOCK_ELEMENTS = 1 << 23
_SLACK = 4
"""Extra candidates kept by the matrix-product distances, so that rounding there cannot lose a neighbour."""


def search(prepared: Tensor, queries: Tensor, n_neighbors: int, metric: str) -> tuple[Tensor, Tensor]:
    """Return ids (q, k) int64 and distances (q, k) float64 of the nearest other rows.

    Candidates come from float64 matrix products, their distances and order from direct differences.
    """
    n = prepared.shape[0]
    columns = prepared if metric == "manhattan" else ordered_form(prepared, metric).double()
    squares = columns.square().sum(dim=1)
    step = max(1, _BLOCK_ELEMENTS // n)
    ids, distances = [], []
    for block in queries.split(step):
        key = _ordering_key(columns, squares, block, metric)
        key[torch.arange(len(block), device=key.device), block] = torch.inf
        nearest, exact = _nearest(prepared, key, block, n_neighbors, n_neighbors + _SLACK, metric)
        ids.append(nearest)
        distances.append(exact)
    return torch.cat(ids), torch.cat(distances)


def _nearest(
    prepared: Tensor, key: Tensor, block: Tensor, n_neighbors: int, n_candidates: int, metric: str
) -> tuple[Tensor, Tensor]:
    """Order the candidates of smallest ``key`` by (distance, id); take more where a tie outlasts them."""
    n_candidates = min(prepared.shape[0] - 1, n_candidates)
    candidates = key.topk(n_candidates, dim=1, largest=False, sorted=False).indices
    candidates, exact = nearest_first(candidates, pair_distances(prepared, block, candidates, metric))
    nearest, distances = candidates[:, :n_neighbors], exact[:, :n_neighbors]
    tied = torch.nonzero(exact[:, -1] <= exact[:, n_neighbors - 1]).squeeze(1)
    if len(tied) and n_candidates < prepared.shape[0] - 1:
        # Rounding in the matrix product would choose among equals, and differently for other blocks.
        wider = _nearest(prepared, key[tied], block[tied], n_neighbors, 4 * n_candidates, metric)
        nearest[tied], distances[tied] = wider
    return nearest, distances


def _ordering_key(columns: Tensor, squares: Tensor, block: Tensor, metric: str) -> Tensor:
    """Return an increasing function of the distances from the ``block`` rows to all rows, (b, n)."""
    if metric == "manhattan":
        return torch.cdist(columns[block], columns, p=1)
    return torch.addmm(squares, columns[block], columns.T, alpha=-2)
