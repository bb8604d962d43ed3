"""Approximate neighbours among many points on a device: each row is compared with the points of its nearest tiles.

How many tiles have to be probed is known from a sample of rows: as many as hold their true neighbours. If these are
many, fewer are probed, and neighbours of neighbours are compared then.
"""

import warnings
from typing import Any

import torch
from torch import Tensor

from torchdr_cne._compiler import triton_works
from torchdr_cne.hashing import random_permutation, stream_key
from torchdr_cne.neighbors import device_search
from torchdr_cne.neighbors.distances import nearest_first, ordered_form, pair_distances
from torchdr_cne.neighbors.tile_index import TileIndex
from torchdr_cne.resources import matmul_precision

_SPARE = 1
"""Points in a list beyond the neighbours, as rounding errors may change the order of the last ones."""
_SAMPLE, _PURPOSE = 1000, 4
_MARGIN = 0.4
"""Fraction of the permitted misses by which a sample has to find more."""
_WORTHWHILE = 0.25
"""Fraction of the points up to which it takes less time to compare each row with them than with all points."""
_MENDED, _MOST_MISSED, _MAX_PASSES = 10, 0.2, 2
"""A pass over neighbours of neighbours leaves about a tenth of the misses, if these are not too many."""
_JOIN_COST = 24
"""Cost of a pass for each of its comparisons, in comparisons of a row with the points of tiles."""
_MOST_JOINED = 1 << 14
"""Comparisons of a row in a pass up to which there are passes: about 60 neighbours."""
_RANKED = 1 << 20
"""Rows whose neighbours are ranked at once, so that ten million rows need little memory."""
_ROUNDING = 1 + 1e-6


def search(prepared: Tensor, n_neighbors: int, metric: str, recall: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return ids (n, k) int64 and distances (n, k) float64 of a fraction ``recall`` of each row's nearest other rows.

    The search is exact where tiles save no time, or do not reach the recall.
    """
    with matmul_precision("highest"):
        found = _search_approximately(prepared, n_neighbors, metric, recall, seed)
    everyone = torch.arange(len(prepared), device=prepared.device)
    return device_search.search(prepared, everyone, n_neighbors, metric) if found is None else found


def _search_approximately(prepared: Tensor, *request: Any) -> tuple[Tensor, Tensor] | None:
    """Return the result of `_search_tiles`, by Triton kernels if they can be had."""
    if not _fuses(prepared):
        return _search_tiles(prepared, *request, fused=False)
    from triton.errors import TritonError

    try:
        with torch.cuda.device_of(prepared):
            return _search_tiles(prepared, *request, fused=True)
    except TritonError as error:
        warnings.warn(
            f"Triton cannot compile the neighbour search for this device ({error!r}): it is computed by torch, which "
            "takes several times longer. Install the triton that belongs to your torch.",
            UserWarning,
            stacklevel=2,
        )
        return _search_tiles(prepared, *request, fused=False)


def _fuses(rows: Tensor) -> bool:
    """Return whether Triton kernels can be had for the device of some rows."""
    return rows.device.type == "cuda" and triton_works()


def _search_tiles(
    prepared: Tensor, n_neighbors: int, metric: str, recall: float, seed: int, *, fused: bool
) -> tuple[Tensor, Tensor] | None:
    """Return the result of `search`, or None where the search has to be exact."""
    n = len(prepared)
    sample = random_permutation(n, stream_key(seed, 0, _PURPOSE), prepared.device)[:_SAMPLE]
    true_ids, true_distances = device_search.search(prepared, sample, n_neighbors, metric)
    index = TileIndex(ordered_form(prepared, metric).float(), n_neighbors + _SPARE, fused=fused)
    missed = (1 - _MARGIN) * (1 - recall), min(_MENDED * (1 - recall), _MOST_MISSED)
    enough, fewer = (index.enough_probes(sample, true_ids, 1 - share) for share in missed)
    compared = (enough * index.tiles.size, fewer * index.tiles.size)

    def neighbors(rows: Tensor, lists: Tensor) -> tuple[Tensor, Tensor]:
        found = (
            _ranked(prepared, own, index.points_of(lists, own), n_neighbors, metric) for own in rows.split(_RANKED)
        )
        ids, distances = zip(*found, strict=True)
        return torch.cat(ids), torch.cat(distances)

    def suffices(lists: Tensor) -> bool:
        as_near = neighbors(sample, lists)[1] <= true_distances[:, -1:] * _ROUNDING
        return float(as_near.double().mean()) >= recall

    everyone = torch.arange(n, device=prepared.device)
    n_compared_by_pass = 4 * (n_neighbors + _SPARE) ** 2
    spares = compared[0] - compared[1] > _JOIN_COST * n_compared_by_pass and n_compared_by_pass <= _MOST_JOINED
    if spares and compared[1] <= _WORTHWHILE * n:
        lists = index.search(fewer)
        for _ in range(_MAX_PASSES):
            lists = index.joined(lists)
            if suffices(lists):
                return neighbors(everyone, lists)
    if compared[0] <= _WORTHWHILE * n:
        lists = index.search(enough)
        if suffices(lists):
            return neighbors(everyone, lists)
    return None


def _ranked(prepared: Tensor, rows: Tensor, candidates: Tensor, k: int, metric: str) -> tuple[Tensor, Tensor]:
    """Return the ids and distances (q, k) of the nearest candidates of each row other than itself."""
    distances = pair_distances(prepared, prepared[rows], candidates, metric)
    ids, distances = nearest_first(candidates, distances.masked_fill_(candidates == rows.unsqueeze(1), torch.inf))
    return ids[:, :k].contiguous(), distances[:, :k].contiguous()
