"""Tiles of equally many near points, from a tree that halves them along principal axes."""

from dataclasses import dataclass

import torch
from torch import Tensor

_AXIS_ROWS, _AXIS_STEPS = 1024, 4
"""Points from which the principal axis of a part is computed, and steps of the power method."""


@dataclass(frozen=True)
class Tiles:
    """The points in tiles of one size.

    Attributes
    ----------
    members : Tensor of shape (T, C), int64
        Points of each tile; some occur twice, as padding.
    is_point : Tensor of shape (T, C), bool
        False where a point is padding.
    centroids : Tensor of shape (T, f), float32
        Mean of each tile.
    """

    members: Tensor
    is_point: Tensor
    centroids: Tensor

    @property
    def size(self) -> int:
        """Number of places in a tile."""
        return self.members.shape[1]

    def places(self) -> Tensor:
        """Return the place of each point (n,) among those of all tiles, int64."""
        places = torch.nonzero(self.is_point.view(-1)).squeeze(1)
        return torch.empty_like(places).scatter_(0, self.members.view(-1)[places], places)


def tiled(columns: Tensor, n_tiles: int, multiple_of: int) -> Tiles:
    """Return ``n_tiles`` tiles, a power of two, of the points (n, f); their size is a multiple of ``multiple_of``.

    All parts of a level of the tree have the same size, so that a level takes a few operations on all of them.
    Neighbouring tiles are near each other.
    """
    n, f = columns.shape
    size = -(-n // (n_tiles * multiple_of)) * multiple_of
    places = torch.arange(n_tiles * size, device=columns.device)  # those from n on repeat the first points
    n_parts = 1
    while n_parts < n_tiles:
        rows = columns[places % n].view(n_parts, -1, f)
        scores = torch.linalg.vecdot(rows, _principal_axes(rows).unsqueeze(1))
        places = places.view(n_parts, -1).gather(1, scores.argsort(dim=1, stable=True)).view(-1)
        n_parts *= 2
    places = places.view(n_tiles, size)
    members, is_point = places % n, places < n
    weights = is_point.to(columns.dtype) / is_point.sum(dim=1, keepdim=True).clamp_min(1)
    return Tiles(members, is_point, torch.bmm(weights.unsqueeze(1), columns[members]).squeeze(1))


def _principal_axes(rows: Tensor) -> Tensor:
    """Return roughly the direction (p, f) in which each part of ``rows`` (p, m, f) has the largest variance."""
    few = rows[:, :: max(1, rows.shape[1] // _AXIS_ROWS)]
    centred = few - few.mean(dim=1, keepdim=True)
    covariances = centred.mT @ centred
    axes = torch.ones_like(centred[:, 0]).unsqueeze(2)
    for _ in range(_AXIS_STEPS):
        axes = covariances @ axes
        axes = axes / torch.linalg.vector_norm(axes, dim=1, keepdim=True).clamp_min(1e-30)
    return axes.squeeze(2)
