"""Exact neighbours in torch, blocked over the queries: the reference for the other backends."""

import torch
from torch import Tensor

from torchdr_cne.neighbors.distances import nearest_first, ordered_form, pair_distances

_BLOCK_ELEMENTS = 1 << 23
_SLACK = 4
"""Extra candidates kept by the matrix-product distances, so that rounding there cannot lose a neighbour."""
_PRODUCT_ROUNDING = 2.0**-45
"""The products of equal distances agree to this share of the rows' squared norms."""


def search(prepared: Tensor, queries: Tensor, n_neighbors: int, metric: str) -> tuple[Tensor, Tensor]:
    """Return ids (q, k) int64 and distances (q, k) float64 of the nearest other rows.

    Candidates come from float64 matrix products, their distances and order from direct differences.
    """
    n = prepared.shape[0]
    columns = prepared if metric == "manhattan" else ordered_form(prepared, metric).double()
    squares = columns.square().sum(dim=1)
    n_candidates = min(n - 1, n_neighbors + _SLACK)
    step = max(1, _BLOCK_ELEMENTS // n)
    ids, distances = [], []
    for block in queries.split(step):
        key = _ordering_key(columns, squares, block, metric)
        key[torch.arange(len(block), device=key.device), block] = torch.inf
        candidates = key.topk(n_candidates, dim=1, largest=False, sorted=False).indices
        candidates, exact = nearest_first(candidates, pair_distances(prepared, block, candidates, metric))
        # A tie that outlasts the candidates: rounding would choose among equals, differently in other blocks.
        tied = torch.nonzero(exact[:, -1] <= exact[:, n_neighbors - 1]).squeeze(1)
        candidates, exact = candidates[:, :n_neighbors], exact[:, :n_neighbors]
        if len(tied) and n_candidates < n - 1:
            sizes = torch.zeros_like(squares) if metric == "manhattan" else squares
            rounding = _PRODUCT_ROUNDING * (sizes[block[tied]].unsqueeze(1) + sizes)
            chosen = _lowest_ids(key[tied], n_neighbors, rounding)
            chosen, reached = nearest_first(chosen, pair_distances(prepared, block[tied], chosen, metric))
            as_near = (reached == exact[tied]).all(dim=1, keepdim=True)
            candidates[tied] = torch.where(as_near, chosen, candidates[tied])
        ids.append(candidates)
        distances.append(exact)
    return torch.cat(ids), torch.cat(distances)


def _lowest_ids(key: Tensor, n_neighbors: int, rounding: Tensor) -> Tensor:
    """Return the ``n_neighbors`` ids of smallest ``key``, the lowest ids among those equal to the last."""
    last = key.kthvalue(n_neighbors, dim=1, keepdim=True).values
    ids = torch.arange(key.shape[1], device=key.device).expand_as(key)
    rank = torch.where(key < last - rounding, -1, ids).masked_fill_(key > last + rounding, key.shape[1])
    return rank.topk(n_neighbors, dim=1, largest=False).indices


def _ordering_key(columns: Tensor, squares: Tensor, block: Tensor, metric: str) -> Tensor:
    """Return an increasing function of the distances from the ``block`` rows to all rows, (b, n)."""
    if metric == "manhattan":
        return torch.cdist(columns[block], columns, p=1)
    return torch.addmm(squares, columns[block], columns.T, alpha=-2)
