"""UMAP's fuzzy simplicial set (McInnes, Healy & Melville, 2018)."""

import math

import numpy as np
import torch
from torch import Tensor

from torchdr_cne.affinity.base import Affinity
from torchdr_cne.affinity.graph import AffinityGraph, symmetrized
from torchdr_cne.neighbors import NeighborGraph
from torchdr_cne.workers import Workers


class UMAPAffinity(Affinity):
    """Fuzzy union of each row's exponential memberships.

    Row i has memberships exp(−(d_ij − ρ_i)⁺/σ_i) that sum to log₂ k, ρ_i being the distance to the nearest
    non-zero neighbour; the graph is A + Aᵀ − A∘Aᵀ. Equal to umap-learn's graph for equal neighbours.

    Parameters
    ----------
    n_neighbors : int, default=15
        Neighbourhood size counting the point itself, as umap-learn counts.
    local_connectivity : float, default=1.0
        Number of nearest neighbours taken as fully connected; fractions interpolate.
    set_op_mix_ratio : float, default=1.0
        1 is the fuzzy union, 0 the fuzzy intersection.
    metric, backend
        See `Affinity`.
    """

    n_neighbors: int = 15
    local_connectivity: float = 1.0
    set_op_mix_ratio: float = 1.0

    def _n_neighbors_needed(self, n: int) -> int:
        if self.n_neighbors < 2:
            raise ValueError(
                f"n_neighbors={self.n_neighbors} counts the point itself, as in umap-learn; use at least 2."
            )
        if not 0 <= self.set_op_mix_ratio <= 1:
            raise ValueError(f"set_op_mix_ratio={self.set_op_mix_ratio} must lie in [0, 1].")
        if not self.local_connectivity >= 0:
            raise ValueError(f"local_connectivity={self.local_connectivity} must be at least 0.")
        return self.n_neighbors - 1

    def from_neighbors(self, neighbors: NeighborGraph) -> AffinityGraph:
        """Compute memberships from distances and take their fuzzy union."""
        weights = self.directed_weights(neighbors)
        return symmetrized(neighbors.indices, weights, self.set_op_mix_ratio, neighbors.share)

    def directed_weights(self, neighbors: NeighborGraph) -> Tensor:
        """Return each row's memberships (q, k), float32."""
        from torchdr_cne.affinity import kernels  # imports Numba

        distances = np.ascontiguousarray(neighbors.distances.cpu().numpy())
        n, k = distances.shape
        total = torch.tensor(distances.sum(dtype=np.float64))
        total = neighbors.share.ranks.add_up(total, "the mean distance")
        mean_distance = float(total) / (neighbors.share.n * (k + 1))  # each point itself is at distance 0
        weights = np.empty((n, k), dtype=np.float32)
        with Workers() as workers:
            arguments = (distances, float(self.local_connectivity), math.log2(k + 1), mean_distance, weights)
            workers.share(kernels.memberships, n, *arguments)
        return torch.from_numpy(weights)
