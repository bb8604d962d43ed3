"""The union of the kNN relation with its transpose."""

from torchdr_cne.affinity.base import Affinity
from torchdr_cne.affinity.graph import AffinityGraph, symmetrized
from torchdr_cne.neighbors import NeighborGraph


class UnionAffinity(Affinity):
    """Unweighted graph: i and j are joined if either is among the other's nearest (Damrich et al., 2023).

    Parameters
    ----------
    n_neighbors : int, default=15
        Number of other points that count as near.
    metric, backend
        See `Affinity`.
    """

    n_neighbors: int = 15

    def _n_neighbors_needed(self, n: int) -> int:
        return self.n_neighbors

    def from_neighbors(self, neighbors: NeighborGraph) -> AffinityGraph:
        """Join every row with its neighbours, weight 1, in both directions."""
        return symmetrized(neighbors.indices, self.directed_weights(neighbors), share=neighbors.share)
