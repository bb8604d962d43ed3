"""Exact neighbours by float32 products, for devices on which the search of the host would wait for transfers.

Products give a lower bound of every squared distance. The nearest by these bounds are the candidates, whose distances
are computed from differences. A row is certain if its last neighbour is nearer than the bounds of all points that are
no candidates; the few other rows, mostly those of ties, are searched again in float64.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from torchdr_cne.devices import block_elements
from torchdr_cne.neighbors import exact
from torchdr_cne.neighbors.distances import nearest_first, ordered_form, pair_distances
from torchdr_cne.resources import matmul_precision

_BLOCK_ELEMENTS = 1 << 23, 1 << 28
"""Number of keys that are computed at once on the CPU, and on other devices."""
_SLACK = 4
"""Candidates of a row beyond its neighbours; the farthest bounds all other points."""
_GROUP = 32
"""Columns that share one minimum, by which most of them are excluded before the selection of candidates."""
_UNIT = 2.0**-24
"""Relative error of one float32 operation."""


def search(prepared: Tensor, queries: Tensor, n_neighbors: int, metric: str) -> tuple[Tensor, Tensor]:
    """Return ids (q, k) int64 and distances (q, k) float64 of the nearest other rows, as `exact.search` does."""
    if metric == "manhattan":
        return exact.search(prepared, queries, n_neighbors, metric)
    candidates, bounds = _candidates(ordered_form(prepared, metric), queries, n_neighbors)
    distances = pair_distances(prepared, prepared[queries], candidates, metric)
    ids, distances = nearest_first(candidates, distances)
    ids, distances = ids[:, :n_neighbors].contiguous(), distances[:, :n_neighbors].contiguous()
    farthest = distances[:, -1]
    again = torch.nonzero((2 * farthest if metric == "cosine" else farthest.square()) >= bounds).squeeze(1)
    if len(again):
        ids[again], distances[again] = exact.search(prepared, queries[again], n_neighbors, metric)
    return ids, distances


def _candidates(columns: Tensor, queries: Tensor, n_neighbors: int) -> tuple[Tensor, Tensor]:
    """Return candidates (q, ≥ k), and what the squared distances (q,) of all other points exceed."""
    n, n_candidates = len(columns), min(len(columns) - 1, n_neighbors + _SLACK)
    points = BoundedPoints.of(columns)
    step = max(1, block_elements(columns.device, *_BLOCK_ELEMENTS) // n)
    found, bounds = [], []
    with matmul_precision("highest"):
        for own in queries.split(step):
            key = points.keys(columns[own]).scatter_(1, own.unsqueeze(1), torch.inf)
            keys, ids = smallest(key, n_candidates)
            found.append(ids)
            bounds.append(points.lower_bound(columns[own], keys.amax(dim=1)))
    if n_candidates == n - 1:  # no other point is left
        return torch.cat(found), columns.new_full((len(queries),), torch.inf, dtype=torch.float64)
    return torch.cat(found), torch.cat(bounds)


@dataclass(frozen=True)
class BoundedPoints:
    """Points whose products with queries bound squared distances from below.

    Attributes
    ----------
    columns : Tensor of shape (m, f + 1), float32
        The points, and their squared norms less what rounding may add; m is n, rounded up to whole groups of columns.
        Rows that are no points are infinitely far.
    rounding : float
        Fraction of the squared norms of both rows up to which a key may be too large.
    """

    columns: Tensor
    rounding: float

    @classmethod
    def of(cls, rows: Tensor) -> "BoundedPoints":
        """Return the points of some rows (n, f)."""
        n, f = rows.shape
        # The bound f on the error of a sum of f products is never reached; for many columns, roots are safe as well.
        rounding = 2 * (min(f, 8 * math.sqrt(f)) + 16) * _UNIT
        squares = (1 - rounding) * torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64).square()
        missing = -n % _GROUP
        padded = pad(squares.float(), (0, missing), value=torch.inf).unsqueeze(1)
        return cls(torch.cat([pad(rows.float(), (0, 0, 0, missing)), padded], dim=1), rounding)

    def keys(self, queries: Tensor) -> Tensor:
        """Return squared distances (q, m) to all points, at the most, less the squared norms of the queries."""
        ones = torch.ones_like(queries[:, :1], dtype=torch.float32)
        return torch.cat([queries.float() * -2, ones], dim=1) @ self.columns.T

    def lower_bound(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Return what squared distances (q,) exceed whose keys are at least ``keys``."""
        squares = torch.linalg.vector_norm(queries, dim=1, dtype=torch.float64).square()
        return keys.double() + (1 - self.rounding) * squares


def smallest(key: Tensor, k: int, group: int = _GROUP) -> tuple[Tensor, Tensor]:
    """Return the k smallest values of each row (q, m) and their columns, m being a multiple of the size of a group.

    They lie in the k groups with the smallest minima, so that a selection among few columns is enough.
    """
    n_groups = key.shape[1] // group
    if 4 * k > n_groups:
        return key.topk(k, dim=1, largest=False, sorted=False)
    minima = key.view(len(key), group, n_groups).amin(dim=1)
    groups = minima.topk(k, dim=1, largest=False, sorted=False).indices
    members = torch.arange(group, device=key.device).mul_(n_groups).unsqueeze(1)
    columns = (groups.unsqueeze(1) + members).view(len(key), -1)
    values, places = key.gather(1, columns).topk(k, dim=1, largest=False, sorted=False)
    return values, columns.gather(1, places)
