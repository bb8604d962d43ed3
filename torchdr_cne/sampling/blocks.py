"""Reciprocal negatives: points are in randomly filled blocks, and block a meets block (s − a) mod B.

Then k is a negative of i exactly if i is a negative of k, so that the whole gradient of a row can be computed
for that row alone, and over all B shifts every pair of points meets exactly once.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from torchdr_cne.affinity import AffinityGraph
from torchdr_cne.hashing import bounded_int, mix, random_permutation, stream_key

BLOCK_SIZE = 64
_PERMUTATION, _SHIFTS = 1, 2
"""Purposes of the random streams used here."""


@dataclass(frozen=True)
class BlockLayout:
    """The assignment of points to B blocks of 64 slots, filled evenly (sizes differ by at most one).

    Attributes
    ----------
    slot_of : Tensor of shape (n,), int64
        Slot of each point.
    occupied : Tensor of shape (B · 64,), bool
        Slots that hold a point; the others are padding.
    """

    slot_of: Tensor
    occupied: Tensor

    @classmethod
    def random(cls, n: int, seed: int, device: torch.device | None = None) -> "BlockLayout":
        """Return blocks filled in a random order that is a pure function of ``seed``."""
        n_blocks = -(-n // BLOCK_SIZE)
        position = torch.empty(n, dtype=torch.int64, device=device)
        order = random_permutation(n, stream_key(seed, 0, _PERMUTATION), device)
        position[order] = torch.arange(n, device=device)
        block = torch.div((position + 1) * n_blocks - 1, n, rounding_mode="floor")
        first = torch.div(block * n, n_blocks, rounding_mode="floor")
        slot_of = block * BLOCK_SIZE + position - first
        occupied = torch.zeros(n_blocks * BLOCK_SIZE, dtype=torch.bool, device=device)
        occupied[slot_of] = True
        return cls(slot_of, occupied)

    @property
    def n_points(self) -> int:
        """Number of points."""
        return len(self.slot_of)

    @property
    def n_slots(self) -> int:
        """Number of slots, a multiple of 64."""
        return len(self.occupied)

    @property
    def n_blocks(self) -> int:
        """Number of blocks B."""
        return self.n_slots // BLOCK_SIZE

    def scatter(self, values: Tensor) -> Tensor:
        """Return values of points (n, …) by slot (B · 64, …); padding is 0."""
        out = values.new_zeros((self.n_slots, *values.shape[1:]))
        out[self.slot_of] = values
        return out

    def gather(self, values: Tensor) -> Tensor:
        """Return values of slots by point."""
        return values[self.slot_of]

    def arrange(self, graph: AffinityGraph, slots: Tensor, own: slice) -> AffinityGraph:
        """Return ``graph``, whose rows belong to ``slots``, in the order of all ``own`` slots; padding has no edges."""
        place, n_own = slots - own.start, own.stop - own.start
        degrees = graph.indptr.new_zeros(n_own).index_copy(0, place, graph.indptr.diff())
        indptr = torch.cat([degrees.new_zeros(1), degrees.cumsum(0)])
        starts = torch.zeros_like(degrees).index_copy(0, place, graph.indptr[:-1])
        arranged = AffinityGraph(indptr, torch.empty_like(graph.indices), torch.empty_like(graph.weights), self.n_slots)
        for rows, edges in arranged.in_parts():
            n_edges = edges.stop - edges.start
            source = torch.repeat_interleave(starts[rows] - indptr[:-1][rows], degrees[rows], output_size=n_edges)
            source += torch.arange(edges.start, edges.stop, device=source.device)
            arranged.indices[edges] = self.slot_of[graph.indices[source].long()].to(graph.indices.dtype)
            arranged.weights[edges] = graph.weights[source]
        return arranged

    def meeting_shift(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Return the one shift in which the slots ``rows`` and ``columns`` meet."""
        return (rows // BLOCK_SIZE + columns // BLOCK_SIZE) % self.n_blocks


def n_shifts_for(negatives_per_row: int, n_blocks: int) -> int:
    """Return how many shifts per step come nearest to ``negatives_per_row`` negatives; at least one, at most B."""
    return min(max(1, round(negatives_per_row / BLOCK_SIZE)), n_blocks)


def draw_shifts(n_blocks: int, n_shifts: int, *, seed: int, step: int) -> list[int]:
    """Return ``n_shifts`` distinct shifts in [0, B), a pure function of (seed, step), by Floyd's algorithm."""
    key = stream_key(seed, step, _SHIFTS)
    chosen: list[int] = []
    for draw, top in enumerate(range(n_blocks - n_shifts, n_blocks)):
        candidate = bounded_int(mix(key + draw), top + 1)
        chosen.append(top if candidate in chosen else candidate)
    return chosen
