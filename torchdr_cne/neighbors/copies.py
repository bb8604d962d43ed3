"""Rows of which there are more copies than neighbours: which copies are neighbours is drawn, so that none is a hub."""

from dataclasses import dataclass

import torch
from torch import Tensor

from torchdr_cne.distributed import Share
from torchdr_cne.hashing import hash_counters, row_digests
from torchdr_cne.inputs import Rows
from torchdr_cne.neighbors.graph import NeighborGraph

_BLOCK_ELEMENTS = 1 << 20
_ORDER, _START = 11, 12
"""Keys of the hashes that order copies, and that choose where a row begins in their order."""


def spread_over_copies(neighbors: NeighborGraph, rows: Rows) -> NeighborGraph:
    """Return the graph with other copies in place of those of the lowest ids, which every row would list.

    A search takes the lowest ids among equal distances. Of a row with more copies than neighbours all lists would then
    hold the same few, which become hubs. Copies are put into a random cycle instead: each lists those that follow it,
    and any other row those from a random place on. Distances are the same, and so is the graph of other data.

    Parameters
    ----------
    neighbors : NeighborGraph
        Neighbours of all rows, or of one rank's.
    rows : Rows
        The rows.
    """
    share, k = rows.share, neighbors.n_neighbors
    among = neighbors.distances[:, -1] == 0
    what = "the search for copies"
    if len(among) != len(share) or not bool(share.ranks.all_gather_ints([int(among.sum())], what).any()):
        return neighbors
    cycles = _Cycles.of(among, rows, k, share, what)
    if len(cycles.sizes) == 0:
        return neighbors
    listed = neighbors.indices.long()
    of_cycle = cycles.cycle_of[listed]
    own = torch.arange(share.start, share.stop, device=listed.device)
    size = cycles.sizes[of_cycle.clamp_min(0)]
    is_own = cycles.cycle_of[own].unsqueeze(1) == of_cycle
    begin = torch.where(is_own, cycles.place[own].unsqueeze(1) + 1, hash_counters(_START, own).unsqueeze(1) % size)
    chosen = cycles.order[cycles.starts[of_cycle.clamp_min(0)] + (begin + _ranks_of(of_cycle)) % size]
    ids, order = torch.where(of_cycle >= 0, chosen, listed).sort(dim=1)
    distances, by_distance = neighbors.distances.gather(1, order).sort(dim=1, stable=True)
    return NeighborGraph(ids.gather(1, by_distance).to(neighbors.indices.dtype), distances, neighbors.share)


@dataclass(frozen=True)
class _Cycles:
    """Cycles of copies: their members one cycle after the other, where each begins, and its size.

    ``cycle_of`` and ``place`` (n,) are the cycle of each row, −1 if none, and its place there.
    """

    order: Tensor
    starts: Tensor
    sizes: Tensor
    cycle_of: Tensor
    place: Tensor

    @classmethod
    def of(cls, among: Tensor, rows: Rows, k: int, share: Share, what: str) -> "_Cycles":
        """Return the cycles of more than ``k`` + 1 copies; ``among`` are this rank's rows that may be in them."""
        blocks = [row_digests(block) for block in rows.blocks(_BLOCK_ELEMENTS)]
        digests = share.gather(torch.cat(blocks).to(among.device), what)
        members = torch.nonzero(share.gather(among.to(torch.int8), what)).squeeze(1)
        members = members[hash_counters(_ORDER, members).argsort(stable=True)]
        members = members[digests[members].argsort(stable=True)]
        sizes = torch.unique_consecutive(digests[members], return_counts=True)[1]
        is_large = sizes > k + 1  # of fewer copies, each lists all others
        members, sizes = members[torch.repeat_interleave(is_large, sizes)], sizes[is_large]
        starts = sizes.cumsum(0) - sizes
        number = torch.repeat_interleave(torch.arange(len(sizes), device=sizes.device), sizes)
        cycle_of = torch.full((share.n,), -1, dtype=torch.int64, device=sizes.device)
        place = torch.zeros_like(cycle_of)
        cycle_of[members] = number
        place[members] = torch.arange(len(members), device=sizes.device) - starts[number]
        return cls(members, starts, sizes, cycle_of, place)


def _ranks_of(cycles: Tensor) -> Tensor:
    """Return for each entry (q, k) how many of its row's entries before it are of the same cycle."""
    ordered, places = cycles.sort(dim=1, stable=True)
    number = torch.arange(cycles.shape[1], device=cycles.device).expand_as(cycles)
    is_first = torch.ones_like(ordered, dtype=torch.bool)
    is_first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = torch.where(is_first, number, 0).cummax(dim=1).values
    return torch.empty_like(cycles).scatter_(1, places, number - first)
