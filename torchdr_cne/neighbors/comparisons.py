"""Comparisons of rows with points that lie in tiles, by torch; `triton_comparisons` has the same for CUDA devices."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from torchdr_cne.devices import block_elements
from torchdr_cne.neighbors.tiles import Tiles

GROUP = 32
"""Points of a tile that share one minimum."""
_ROWS = 128
"""Rows in one product with the points of a tile."""
_WIDTH = 16
"""Number of columns of which a table has a multiple, so that aligned loads read it."""
_BLOCK_ELEMENTS = 1 << 22, 1 << 28


@dataclass(frozen=True)
class PlacedPoints:
    """Points in the order of their tiles, where each has a place.

    Attributes
    ----------
    table : Tensor of shape (T · size, width), float32
        The points, with columns of zeros up to a multiple of 16.
    squares : Tensor of shape (T · size,), float32
        Squared norms; infinite at places without a point.
    size : int
        Number of places in a tile.
    """

    table: Tensor
    squares: Tensor
    size: int

    @classmethod
    def of(cls, columns: Tensor, tiles: Tiles) -> "PlacedPoints":
        """Return the points (n, f) in their tiles."""
        squares = columns.square().sum(dim=1)[tiles.members].masked_fill_(~tiles.is_point, torch.inf).view(-1)
        return cls(pad(columns, (0, -columns.shape[1] % _WIDTH))[tiles.members.view(-1)], squares, tiles.size)

    def or_row(self, rows: Tensor, places: Tensor) -> Tensor:
        """Return places (q, c), int32, with the row instead of those where there is no point."""
        return torch.where(self.squares[places].isinf(), rows.unsqueeze(1).int(), places.int())


class Comparisons(Protocol):
    """What compares rows with points; both are given by their places."""

    def probed(self, rows: Tensor, probes: Tensor, n_near: int) -> Tensor:
        """Return places (q, c) of points, among which are the ``n_near`` nearest to each row in its tiles (q, p)."""

    def nearest(self, rows: Tensor, candidates: Tensor, n_near: int) -> Tensor:
        """Return the places (q, n_near) of the nearest of each row's candidates (q, c ≥ n_near), int32.

        They are different places, sorted by distance and place; the row itself is there only if there are too few.
        """


class TorchComparisons:
    """Comparisons on any device."""

    def __init__(self, points: PlacedPoints) -> None:
        self._points = points
        squared = torch.cat([points.table, points.squares.unsqueeze(1)], dim=1)
        self._squared = squared.view(-1, points.size, squared.shape[1])

    def probed(self, rows: Tensor, probes: Tensor, n_near: int) -> Tensor:
        """See `Comparisons`."""
        batches = Batches.of(probes, len(self._squared))
        columns = self._points.table[rows]
        queries = torch.cat([columns * -2, torch.ones_like(columns[:, :1])], dim=1)
        keys = torch.bmm(queries[batches.rows], self._squared[batches.tiles].mT)  # less the squared norms of the rows
        size, n_groups = self._points.size, self._points.size // GROUP
        minima = keys.view(-1, GROUP, n_groups).amin(dim=1)[batches.places].view(len(rows), -1)
        groups = minima.topk(n_near, dim=1, largest=False, sorted=False).indices
        first = batches.places.gather(1, groups // n_groups) * size + groups % n_groups
        members = torch.arange(GROUP, device=keys.device) * n_groups
        addresses = (first.unsqueeze(2) + members).view(len(rows), -1)
        nearest = keys.view(-1)[addresses].topk(n_near, dim=1, largest=False, sorted=False).indices
        addresses = addresses.gather(1, nearest)
        return self._points.or_row(rows, batches.tiles[addresses // (size * _ROWS)] * size + addresses % size)

    def nearest(self, rows: Tensor, candidates: Tensor, n_near: int) -> Tensor:
        """See `Comparisons`."""
        return nearest_of(self._points.table, rows, candidates, n_near)


def nearest_of(table: Tensor, rows: Tensor, candidates: Tensor, n_near: int) -> Tensor:
    """Return what `Comparisons.nearest` returns, for points in the rows of ``table``."""
    found = []
    step = max(1, block_elements(rows.device, *_BLOCK_ELEMENTS) // (candidates.shape[1] * table.shape[1]))
    for own, near in zip(rows.split(step), candidates.split(step), strict=True):
        near = near.long().sort(dim=1).values
        keys = (table[near] - table[own].unsqueeze(1)).square_().sum(dim=2)
        unwanted = near == own.unsqueeze(1)
        unwanted[:, 1:] |= near[:, 1:] == near[:, :-1]
        keys, order = keys.masked_fill_(unwanted, torch.inf).sort(dim=1, stable=True)
        keys, near = keys[:, :n_near], near.gather(1, order[:, :n_near])
        found.append(torch.where(keys.isinf(), own.unsqueeze(1), near).int())
    return torch.cat(found)


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
