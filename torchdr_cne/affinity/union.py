"""The union of the kNN relation with its transpose."""

from dataclasses import dataclass

import torch
from torch import Tensor

from torchdr_cne.affinity.base import FewNeighbors
from torchdr_cne.affinity.composed import DISTANCES, WEIGHTS, Transform, TransformedAffinity
from torchdr_cne.affinity.transforms import Symmetrize
from torchdr_cne.neighbors import NeighborGraph


@dataclass(frozen=True)
class Binary(Transform):
    """A transform that gives every neighbour the weight 1."""

    turns = {DISTANCES: WEIGHTS}

    def apply(self, values: Tensor, neighbors: NeighborGraph) -> Tensor:
        """Return ones (q, k), float32."""
        return torch.ones_like(values, dtype=torch.float32)


class UnionAffinity(TransformedAffinity, FewNeighbors):
    """Unweighted graph in which i and j are joined if either is a neighbour of the other (Damrich et al., 2023).

    Parameters
    ----------
    n_neighbors : int, default=15
        Number of neighbours of each row, not counting the row itself.
    metric, backend
        See `Affinity`.
    """

    n_neighbors: int = 15

    def _n_neighbors_needed(self, n: int) -> int:
        return self.n_neighbors

    def _transforms(self) -> tuple[Transform, ...]:
        return Binary(), Symmetrize("union")
