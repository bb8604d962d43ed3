"""Approximate neighbours for many points on a device: each query is compared with the points of its nearest tiles.

The queries of a tile are compared with its points by one product. Tiles are probed until the recall, measured on a
sample of rows, is reached.
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
from torchdr_cne.neighbors.tiles import Tiles, tiled
from torchdr_cne.resources import matmul_precision

_BLOCK_ELEMENTS = 1 << 22, 1 << 28
_SLACK = 4
"""Candidates of a row beyond its neighbours, so that rounding errors of the products lose none."""
_GROUP = 32
"""Points of a tile that share one minimum."""
_QUERIES = 64
"""Queries in one product with the points of a tile."""
_SAMPLE, _PURPOSE = 1000, 4
_FIRST_PROBES = 8
_ROUNDING = 1 + 1e-6


def search(prepared: Tensor, n_neighbors: int, metric: str, recall: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return ids (n, k) int64 and distances (n, k) float64 of a fraction ``recall`` of each row's nearest other rows.

    The search is exact if tiles do not reach the recall.
    """
    n = len(prepared)
    index = TileIndex(ordered_form(prepared, metric).float(), n_neighbors + _SLACK)
    sample = random_permutation(n, stream_key(seed, 0, _PURPOSE), prepared.device)[:_SAMPLE]
    farthest = device_search.search(prepared, sample, n_neighbors, metric)[1][:, -1:]
    n_probes = min(index.fewest_probes(_FIRST_PROBES), index.n_tiles)
    while True:
        found = _ranked(prepared, sample, index.candidates(sample, n_probes), n_neighbors, metric)
        shares = (found[1] <= farthest * _ROUNDING).double().mean(dim=1)
        if float(shares.mean() - shares.std() / math.sqrt(len(shares))) >= recall:
            break
        if n_probes == index.n_tiles:
            return device_search.search(prepared, torch.arange(n, device=prepared.device), n_neighbors, metric)
        n_probes = min(2 * n_probes, index.n_tiles)
    everyone = torch.arange(n, device=prepared.device)
    return _ranked(prepared, everyone, index.candidates(everyone, n_probes), n_neighbors, metric)


def _ranked(prepared: Tensor, rows: Tensor, candidates: Tensor, k: int, metric: str) -> tuple[Tensor, Tensor]:
    ids, distances = nearest_first(candidates, pair_distances(prepared, prepared[rows], candidates, metric))
    return ids[:, :k].contiguous(), distances[:, :k].contiguous()


class TileIndex:
    """Tiles of the points (n, f), float32, in which ``n_candidates`` near points of each row are found."""

    def __init__(self, columns: Tensor, n_candidates: int) -> None:
        self._columns, self._n_candidates = columns, n_candidates
        self.n_tiles = min(suitable_lists(len(columns)), 2 ** int(math.log2(len(columns) / _GROUP)))
        with matmul_precision("highest"):
            self._tiles: Tiles = tiled(columns, self.n_tiles, _GROUP)
        self._centroids = BoundedPoints.of(self._tiles.centroids)
        squares = columns.square().sum(dim=1)[self._tiles.members].masked_fill_(~self._tiles.is_point, torch.inf)
        self._points = torch.cat([columns[self._tiles.members], squares.unsqueeze(2)], dim=2)

    def fewest_probes(self, wanted: int) -> int:
        """Return ``wanted``, or the number of tiles that have a group of points for each candidate."""
        return max(wanted, -(-self._n_candidates // (self._tiles.members.shape[1] // _GROUP)))

    def candidates(self, rows: Tensor, n_probes: int) -> Tensor:
        """Return near points (q, n_candidates) of some rows (q,) in the ``n_probes`` tiles nearest to each."""
        longest = max(self.n_tiles, n_probes * self._tiles.members.shape[1])
        step = max(1, block_elements(rows.device, *_BLOCK_ELEMENTS) // longest)
        with matmul_precision("highest"):
            return torch.cat([self._candidates(block, n_probes) for block in rows.split(step)])

    def _candidates(self, rows: Tensor, n_probes: int) -> Tensor:
        columns = self._columns[rows]
        probes = smallest(self._centroids.keys(columns), n_probes)[1]
        batches = Batches.of(probes, self.n_tiles)
        ones = torch.ones_like(columns[:, :1])
        queries = torch.cat([columns * -2, ones], dim=1)[batches.queries]
        keys = torch.bmm(queries, self._points[batches.tiles].mT)  # squared distances less those of the queries
        members = self._tiles.members[batches.tiles]
        keys.masked_fill_(members.unsqueeze(1) == rows[batches.queries].unsqueeze(2), torch.inf)
        return self._nearest(keys, members, batches.places)

    def _nearest(self, keys: Tensor, members: Tensor, places: Tensor) -> Tensor:
        """Return the points of the smallest keys (b, _QUERIES, C) of each row, which has the keys at ``places``."""
        size = keys.shape[2]
        n_groups = size // _GROUP
        minima = keys.view(-1, _GROUP, n_groups).amin(dim=1)[places].view(len(places), -1)
        chosen = minima.topk(self._n_candidates, dim=1, largest=False, sorted=False).indices
        first = places.gather(1, chosen // n_groups) * size + chosen % n_groups
        everywhere = torch.arange(_GROUP, device=keys.device) * n_groups
        addresses = (first.unsqueeze(2) + everywhere).view(len(places), -1)
        nearest = keys.view(-1)[addresses].topk(self._n_candidates, dim=1, largest=False, sorted=False).indices
        addresses = addresses.gather(1, nearest)
        return members.view(-1)[addresses // (size * _QUERIES) * size + addresses % size]


@dataclass(frozen=True)
class Batches:
    """Pairs of a query and a tile, sorted by tile and cut into batches of one tile and `_QUERIES` queries.

    Attributes
    ----------
    tiles : Tensor of shape (b,), int64
        Tile of each batch.
    queries : Tensor of shape (b, _QUERIES), int64
        Queries of each batch; where there are too few, the first query of all.
    places : Tensor of shape (q, n_probes), int64
        Place of each query's pairs in ``queries``, counted over all batches.
    """

    tiles: Tensor
    queries: Tensor
    places: Tensor

    @classmethod
    def of(cls, probes: Tensor, n_tiles: int) -> "Batches":
        """Return the pairs of each query and its ``probes`` (q, n_probes)."""
        tiles, order = probes.reshape(-1).sort(stable=True)
        counts = torch.bincount(tiles, minlength=n_tiles)
        n_batches = (counts + _QUERIES - 1) // _QUERIES
        shift = (n_batches.cumsum(0) - n_batches) * _QUERIES - (counts.cumsum(0) - counts)
        of_sorted = torch.arange(len(tiles), device=tiles.device) + shift[tiles]
        places = torch.empty_like(order).scatter_(0, order, of_sorted)
        of_batches = torch.repeat_interleave(torch.arange(n_tiles, device=tiles.device), n_batches)
        queries = order.new_zeros(len(of_batches) * _QUERIES).scatter_(0, of_sorted, order // probes.shape[1])
        return cls(of_batches, queries.view(-1, _QUERIES), places.view(probes.shape))
