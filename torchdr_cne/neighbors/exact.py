"""Exact neighbours in torch, in blocks of queries; these are the reference for the other backends."""

import torch
from torch import Tensor

from torchdr_cne.devices import block_elements
from torchdr_cne.neighbors.distances import nearest_first, ordered_form, pair_distances

_BLOCK_ELEMENTS = 1 << 23, 1 << 27
"""Number of keys that are computed at once on the CPU, and on other devices."""
_SLACK = 4
"""Extra candidates by matrix-product distances, so that their rounding errors cannot lose a neighbour."""
_PRODUCT_ROUNDING = 2.0**-45
"""Fraction of the squared norms of the rows up to which the products of equal distances agree."""


def search(prepared: Tensor, queries: Tensor, n_neighbors: int, metric: str) -> tuple[Tensor, Tensor]:
    """Return ids (q, k) int64 and distances (q, k) float64 of the nearest other rows."""
    points = Points(prepared, metric)
    found = [points.nearest(prepared[block], block, n_neighbors) for block in queries.split(points.step)]
    ids, distances = zip(*found, strict=True)
    return torch.cat(ids), torch.cat(distances)


class Points:
    """Points among which neighbours are found: candidates by float64 matrix products, distances by differences."""

    def __init__(self, prepared: Tensor, metric: str) -> None:
        self._prepared, self._metric = prepared, metric
        self._columns = prepared if metric == "manhattan" else ordered_form(prepared, metric).double()
        self._squares = self._columns.square().sum(dim=1)
        self.step = max(1, block_elements(prepared.device, *_BLOCK_ELEMENTS) // max(1, len(prepared)))

    def search(self, query_rows: Tensor, own: Tensor, n_neighbors: int) -> tuple[Tensor, Tensor]:
        """Return ids and distances (q, k) for any rows (q, f); ``own`` (q,) are their ids, −1 if they have none.

        If there are too few points, the remaining ids are −1 and the distances infinite.
        """
        blocks = zip(query_rows.split(self.step), own.split(self.step), strict=True)
        found = [self.nearest(rows, ids, min(n_neighbors, len(self._prepared))) for rows, ids in blocks]
        ids, distances = (torch.cat(part) for part in zip(*found, strict=True))
        missing = (0, n_neighbors - ids.shape[1])
        distances = torch.nn.functional.pad(distances, missing, value=torch.inf)
        return torch.nn.functional.pad(ids, missing).masked_fill_(torch.isinf(distances), -1), distances

    def nearest(self, rows: Tensor, own: Tensor, n_neighbors: int) -> tuple[Tensor, Tensor]:
        """Return ids and distances of the points nearest to a block of rows, other than these rows themselves."""
        n, metric = len(self._prepared), self._metric
        columns, squares = self._queries(rows)
        key = self._ordering_key(columns)
        if metric == "cosine":  # an all-zero row is at distance 1 from all, whatever their rounded norms
            key[(rows == 0).all(dim=1)] = 0.0
        is_here = torch.nonzero(own >= 0).squeeze(1)
        key[is_here, own[is_here]] = torch.inf
        n_candidates = min(n, n_neighbors + _SLACK)
        candidates = key.topk(n_candidates, dim=1, largest=False, sorted=False).indices
        exact = pair_distances(self._prepared, rows, candidates, metric)
        candidates, exact = nearest_first(candidates, exact.masked_fill_(candidates == own.unsqueeze(1), torch.inf))
        # If a tie goes beyond the candidates, rounding would choose among equals, and differently in other blocks.
        tied = torch.nonzero(exact[:, -1] <= exact[:, n_neighbors - 1]).squeeze(1)
        candidates, exact = candidates[:, :n_neighbors], exact[:, :n_neighbors]
        if len(tied) and n_candidates < n:
            sizes = torch.zeros_like(self._squares) if metric == "manhattan" else self._squares
            rounding = _PRODUCT_ROUNDING * (squares[tied].unsqueeze(1) + sizes)
            chosen = _lowest_ids(key[tied], n_neighbors, rounding)
            chosen, reached = nearest_first(chosen, pair_distances(self._prepared, rows[tied], chosen, metric))
            as_near = (reached == exact[tied]).all(dim=1, keepdim=True)
            candidates[tied] = torch.where(as_near, chosen, candidates[tied])
        return candidates, exact

    def _queries(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return queries in the same form as the points, and their squared norms."""
        if self._metric == "manhattan":
            return rows, torch.zeros(len(rows), dtype=self._squares.dtype, device=rows.device)
        columns = rows.double()
        if self._columns.shape[1] > columns.shape[1]:  # the coordinate of all-zero rows
            empty = (rows == 0).all(dim=1, keepdim=True)
            columns = torch.cat([columns, empty.double()], dim=1)
        return columns, columns.square().sum(dim=1)

    def _ordering_key(self, columns: Tensor) -> Tensor:
        """Return values (b, n) that increase with the distances to all points."""
        if self._metric == "manhattan":
            return torch.cdist(columns, self._columns, p=1)
        return torch.addmm(self._squares, columns, self._columns.T, alpha=-2)


def _lowest_ids(key: Tensor, n_neighbors: int, rounding: Tensor) -> Tensor:
    """Return the ``n_neighbors`` ids of smallest ``key``; among keys equal to the last, the lowest ids."""
    last = key.kthvalue(n_neighbors, dim=1, keepdim=True).values
    ids = torch.arange(key.shape[1], device=key.device).expand_as(key)
    rank = torch.where(key < last - rounding, -1, ids).masked_fill_(key > last + rounding, key.shape[1])
    return rank.topk(n_neighbors, dim=1, largest=False).indices
