"""Approximate neighbours among many points on a device: each row is compared with the points of its nearest tiles.

The rows that probe a tile are compared with its points by one product. How many tiles have to be probed is known from
a sample of rows: as many as hold their true neighbours.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from torchdr_cne.devices import block_elements
from torchdr_cne.hashing import random_permutation, stream_key
from torchdr_cne.neighbors import device_search
from torchdr_cne.neighbors.device_search import BoundedPoints, smallest
from torchdr_cne.neighbors.distances import nearest_first, ordered_form, pair_distances
from torchdr_cne.neighbors.faiss_index import suitable_lists
from torchdr_cne.neighbors.tiles import tiled
from torchdr_cne.resources import matmul_precision

_BLOCK_ELEMENTS = 1 << 22, 1 << 28
_SPARE = 5
"""Candidates of a row beyond its neighbours: the row itself, and some that rounding errors may bring in."""
_GROUP = 32
"""Points of a tile that share one minimum."""
_ROWS = 128
"""Rows in one product with the points of a tile."""
_SAMPLE, _PURPOSE = 1000, 4
_MARGIN = 0.4
"""Fraction of the permitted misses by which a sample has to find more."""
_WORTHWHILE = 0.25
"""Fraction of the points up to which it takes less time to compare each row with them than with all points."""
_ROUNDING = 1 + 1e-6


def search(prepared: Tensor, n_neighbors: int, metric: str, recall: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return ids (n, k) int64 and distances (n, k) float64 of a fraction ``recall`` of each row's nearest other rows.

    The search is exact where tiles save no time, or do not reach the recall.
    """
    everyone = torch.arange(len(prepared), device=prepared.device)
    with matmul_precision("highest"):
        found = _search_tiles(prepared, n_neighbors, metric, recall, seed)
    return device_search.search(prepared, everyone, n_neighbors, metric) if found is None else found


def _search_tiles(
    prepared: Tensor, n_neighbors: int, metric: str, recall: float, seed: int
) -> tuple[Tensor, Tensor] | None:
    """Return the result of `search`, or None where the search has to be exact."""
    n = len(prepared)
    everyone = torch.arange(n, device=prepared.device)
    sample = random_permutation(n, stream_key(seed, 0, _PURPOSE), prepared.device)[:_SAMPLE]
    true_ids, true_distances = device_search.search(prepared, sample, n_neighbors, metric)
    index = TileIndex(ordered_form(prepared, metric).float(), n_neighbors + _SPARE)
    n_probes = index.enough_probes(sample, true_ids, 1 - (1 - _MARGIN) * (1 - recall))
    if n_probes * index.tiles.size > _WORTHWHILE * n:
        return None
    ids, distances = _ranked(prepared, everyone, index.candidates(n_probes), n_neighbors, metric)
    as_near = distances[sample] <= true_distances[:, -1:] * _ROUNDING
    return (ids, distances) if float(as_near.double().mean()) >= recall else None


def _ranked(prepared: Tensor, rows: Tensor, candidates: Tensor, k: int, metric: str) -> tuple[Tensor, Tensor]:
    """Return the ids and distances (q, k) of the nearest candidates of each row other than itself."""
    distances = pair_distances(prepared, prepared[rows], candidates, metric)
    ids, distances = nearest_first(candidates, distances.masked_fill_(candidates == rows.unsqueeze(1), torch.inf))
    return ids[:, :k].contiguous(), distances[:, :k].contiguous()


class TileIndex:
    """Tiles of the points (n, f), float32, in which ``n_candidates`` points near each are found."""

    def __init__(self, columns: Tensor, n_candidates: int) -> None:
        self._columns, self._n_candidates = columns, n_candidates
        self._n_tiles = min(suitable_lists(len(columns)), 2 ** int(math.log2(len(columns) / _GROUP)))
        self.tiles = tiled(columns, self._n_tiles, _GROUP)
        self._centroids = BoundedPoints.of(self.tiles.centroids)
        members, is_point = self.tiles.members, self.tiles.is_point
        squares = columns.square().sum(dim=1)[members].masked_fill_(~is_point, torch.inf)
        self._points = torch.cat([columns[members], squares.unsqueeze(2)], dim=2)

    def enough_probes(self, rows: Tensor, true_ids: Tensor, recall: float) -> int:
        """Return in how many tiles nearest to each of some rows the fraction ``recall`` of ``true_ids`` (q, k) lies."""
        keys = self._centroids.keys(self._columns[rows])
        order = keys[:, : self._n_tiles].argsort(dim=1)
        ranks = torch.empty_like(order).scatter_(
            1, order, torch.arange(self._n_tiles, device=rows.device).expand_as(order)
        )
        of_neighbors = ranks.gather(1, self.tiles.of_points()[true_ids]).view(-1)
        enough = int(of_neighbors.kthvalue(math.ceil(recall * len(of_neighbors))).values) + 1
        groups_of_tile = self.tiles.size // _GROUP
        return max(enough, -(-self._n_candidates // groups_of_tile))

    def candidates(self, n_probes: int) -> Tensor:
        """Return near points (n, n_candidates) of each point, which may be the point itself, in ``n_probes`` tiles."""
        rows = self.tiles.members[self.tiles.is_point]  # near rows probe much the same tiles
        step = max(1, block_elements(rows.device, *_BLOCK_ELEMENTS) // max(self._n_tiles, n_probes * self.tiles.size))
        found = torch.empty((len(rows), self._n_candidates), dtype=torch.int64, device=rows.device)
        for block in rows.split(step):
            found[block] = self._candidates(self._columns[block], n_probes)
        return found

    def _candidates(self, columns: Tensor, n_probes: int) -> Tensor:
        batches = Batches.of(smallest(self._centroids.keys(columns), n_probes)[1], self._n_tiles)
        queries = torch.cat([columns * -2, torch.ones_like(columns[:, :1])], dim=1)
        keys = torch.bmm(queries[batches.rows], self._points[batches.tiles].mT)  # less the squared norms of the rows
        size, n_groups = self.tiles.size, self.tiles.size // _GROUP
        minima = keys.view(-1, _GROUP, n_groups).amin(dim=1)[batches.places].view(len(columns), -1)
        groups = minima.topk(self._n_candidates, dim=1, largest=False, sorted=False).indices
        first = batches.places.gather(1, groups // n_groups) * size + groups % n_groups
        members = torch.arange(_GROUP, device=keys.device) * n_groups
        addresses = (first.unsqueeze(2) + members).view(len(columns), -1)
        nearest = keys.view(-1)[addresses].topk(self._n_candidates, dim=1, largest=False, sorted=False).indices
        addresses = addresses.gather(1, nearest)
        return self.tiles.members[batches.tiles[addresses // (size * _ROWS)], addresses % size]


@dataclass(frozen=True)
class Batches:
    """Pairs of a row and a tile, sorted by tile and cut into batches of one tile and `_ROWS` rows.

    Attributes
    ----------
    tiles : Tensor of shape (b,), int64
        Tile of each batch.
    rows : Tensor of shape (b, _ROWS), int64
        Rows of each batch; if there are too few, row 0 is in the remaining places.
    places : Tensor of shape (q, n_probes), int64
        Places of each row's pairs in ``rows``, counted over all batches.
    """

    tiles: Tensor
    rows: Tensor
    places: Tensor

    @classmethod
    def of(cls, probes: Tensor, n_tiles: int) -> "Batches":
        """Return the pairs of each row and its ``probes`` (q, n_probes)."""
        tiles, order = probes.reshape(-1).sort(stable=True)
        counts = torch.bincount(tiles, minlength=n_tiles)
        n_batches = (counts + _ROWS - 1) // _ROWS
        shift = (n_batches.cumsum(0) - n_batches) * _ROWS - (counts.cumsum(0) - counts)
        sorted_places = torch.arange(len(tiles), device=tiles.device) + shift[tiles]
        places = torch.empty_like(order).scatter_(0, order, sorted_places)
        of_batches = torch.repeat_interleave(torch.arange(n_tiles, device=tiles.device), n_batches)
        rows = order.new_zeros(len(of_batches) * _ROWS).scatter_(0, sorted_places, order // probes.shape[1])
        return cls(of_batches, rows.view(-1, _ROWS), places.view(probes.shape))
