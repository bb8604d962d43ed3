"""An index of points in tiles, in which lists of near points are searched and improved."""

import math

import torch
from torch import Tensor

from torchdr_cne.devices import block_elements
from torchdr_cne.neighbors.comparisons import GROUP, Comparisons, PlacedPoints, TorchComparisons
from torchdr_cne.neighbors.device_search import BoundedPoints, smallest
from torchdr_cne.neighbors.faiss_index import suitable_lists
from torchdr_cne.neighbors.tiles import tiled

_BLOCK_ELEMENTS = 1 << 22, 1 << 28
_TILES = 8
"""Tiles that share one minimum in the selection of the nearest."""
_SPARE = 4
"""Points that are searched for beyond those of a list: the row itself, and some that rounding errors may bring in."""


class TileIndex:
    """Tiles of the points (n, f), float32, in which ``n_near`` points near each are found.

    Lists of near points (T · size, n_near), int32, hold places in the order of the tiles, for each place.
    """

    def __init__(self, columns: Tensor, n_near: int, *, fused: bool = False) -> None:
        self._n_near = n_near
        self._n_tiles = min(suitable_lists(len(columns)), 2 ** int(math.log2(len(columns) / GROUP)))
        self.tiles = tiled(columns, self._n_tiles, GROUP)
        self._centroids = BoundedPoints.of(self.tiles.centroids)
        self._points = PlacedPoints.of(columns, self.tiles)
        self._rows = torch.nonzero(self.tiles.is_point.view(-1)).squeeze(1)
        self._place_of = self.tiles.places()
        self._comparisons = _comparisons(self._points, fused)

    def enough_probes(self, rows: Tensor, true_ids: Tensor, recall: float) -> int:
        """Return in how many tiles nearest to each of some rows the fraction ``recall`` of ``true_ids`` (q, k) lies."""
        order = self._tile_keys(self._place_of[rows])[:, : self._n_tiles].argsort(dim=1)
        ranks = torch.empty_like(order).scatter_(
            1, order, torch.arange(self._n_tiles, device=rows.device).expand_as(order)
        )
        of_neighbors = ranks.gather(1, self._place_of[true_ids] // self.tiles.size).view(-1)
        enough = int(of_neighbors.kthvalue(max(1, math.ceil(recall * len(of_neighbors)))).values) + 1
        groups_of_tile = self.tiles.size // GROUP
        return max(enough, -(-(self._n_near + _SPARE) // groups_of_tile))

    def _tile_keys(self, places: Tensor) -> Tensor:
        return self._centroids.keys(self._points.table[places, : self.tiles.centroids.shape[1]])

    def search(self, n_probes: int) -> Tensor:
        """Return lists of the nearest points in the ``n_probes`` nearest tiles of each point."""
        n_groups = self.tiles.size // GROUP
        largest = max(self._n_tiles, n_probes * n_groups, (self._n_near + _SPARE) * GROUP)
        if isinstance(self._comparisons, TorchComparisons):
            largest = max(largest, n_probes * self.tiles.size)
        found = self._empty_lists()
        for rows in self._rows.split(self._step(largest)):
            probes = smallest(self._tile_keys(rows), n_probes, _TILES)[1]
            candidates = self._comparisons.probed(rows, probes, self._n_near + _SPARE)
            found[rows] = self._comparisons.nearest(rows, candidates, self._n_near)
        return found

    def joined(self, lists: Tensor) -> Tensor:
        """Return lists of the nearest in the lists of all points that a point lists, or that list it, and in its own.

        Neighbours of neighbours are likely to be neighbours (Dong, Moses & Li, 2011).
        """
        linked = torch.cat([lists, self._listed_by(lists), self._all_places().unsqueeze(1)], dim=1)
        found = self._empty_lists()
        for rows in self._rows.split(self._step(linked.shape[1] ** 2)):
            candidates = linked[linked[rows].long()].view(len(rows), -1)
            found[rows] = self._comparisons.nearest(rows, candidates, self._n_near)
        return found

    def _listed_by(self, lists: Tensor) -> Tensor:
        """Return n_near − 1 points that list each point, first those that list it first, and then the point itself."""
        found = self._all_places().unsqueeze(1).repeat(1, self._n_near - 1)
        n_found = torch.zeros(len(lists), dtype=torch.int64, device=lists.device)
        for column in range(self._n_near):
            listed, order = lists[self._rows, column].sort(stable=True)
            starts = torch.searchsorted(listed, torch.arange(len(lists) + 1, dtype=listed.dtype, device=listed.device))
            listed = listed.long()
            slots = torch.arange(len(listed), device=listed.device) + (n_found - starts[:-1])[listed]
            kept = torch.nonzero(slots < found.shape[1]).squeeze(1)
            found[listed[kept], slots[kept]] = self._rows[order[kept]].int()
            n_found += starts.diff()
        return found

    def points_of(self, lists: Tensor, rows: Tensor) -> Tensor:
        """Return the numbers (q, n_near) of the points that some rows list."""
        return self.tiles.members.view(-1)[lists[self._place_of[rows]].long()]

    def _all_places(self) -> Tensor:
        return torch.arange(self.tiles.members.numel(), dtype=torch.int32, device=self._rows.device)

    def _empty_lists(self) -> Tensor:
        return self._all_places().unsqueeze(1).repeat(1, self._n_near)

    def _step(self, elements_of_row: int) -> int:
        return max(1, block_elements(self._rows.device, *_BLOCK_ELEMENTS) // elements_of_row)


def _comparisons(points: PlacedPoints, fused: bool) -> Comparisons:
    if not fused:
        return TorchComparisons(points)
    from torchdr_cne.neighbors.triton_comparisons import TritonComparisons

    return TritonComparisons(points)
