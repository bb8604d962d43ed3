"""UMAP's fuzzy simplicial set (McInnes, Healy & Melville, 2018)."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from torchdr_cne.affinity import device
from torchdr_cne.affinity.base import FewNeighbors
from torchdr_cne.affinity.composed import DISTANCES, WEIGHTS, Transform, TransformedAffinity
from torchdr_cne.affinity.transforms import Symmetrize
from torchdr_cne.devices import on_cpu
from torchdr_cne.neighbors import NeighborGraph
from torchdr_cne.workers import Workers


@dataclass(frozen=True)
class Connectivity(Transform):
    """UMAP's fuzzy memberships exp(−(d_ij − ρ_i)⁺/σ_i), which sum to log₂ (k + 1) in each row of k neighbours.

    Parameters
    ----------
    local_connectivity : float, default=1.0
        Number of nearest neighbours that count as fully connected; fractions interpolate.
    """

    local_connectivity: float = 1.0

    turns = {DISTANCES: WEIGHTS}

    def __post_init__(self) -> None:
        if not self.local_connectivity >= 0:
            raise ValueError(f"local_connectivity={self.local_connectivity} must be at least 0.")

    def apply(self, values: Tensor, neighbors: NeighborGraph) -> Tensor:
        """Return each row's memberships (q, k), float32."""
        own = values.numpy().sum(dtype=np.float64) if on_cpu(values) else values.sum(dtype=torch.float64)
        total = torch.tensor(float(own), dtype=torch.float64)
        total = neighbors.share.ranks.add_up(total, "the mean distance")
        n_distances = neighbors.share.n * (values.shape[1] + 1)  # each point itself is at distance 0
        return self._memberships(values, float(total) / n_distances)

    def apply_to_new(self, values: Tensor, neighbors: NeighborGraph) -> Tensor:
        """Return each row's memberships (q, k); the lower bound of σ depends only on the row's own mean distance."""
        return self._memberships(values, math.nan)

    def _memberships(self, values: Tensor, mean_distance: float) -> Tensor:
        n, k = values.shape
        arguments = float(self.local_connectivity), math.log2(k + 1), mean_distance
        if not on_cpu(values):
            return device.memberships(values, *arguments)
        from torchdr_cne.affinity import kernels  # imports Numba

        distances, weights = np.ascontiguousarray(values.numpy()), np.empty((n, k), dtype=np.float32)
        with Workers() as workers:
            workers.parallel_for(kernels.memberships, n, distances, *arguments, weights)
        return torch.from_numpy(weights)


class UMAPAffinity(TransformedAffinity, FewNeighbors):
    """UMAP's graph, the fuzzy union of each row's exponential memberships.

    Row i has memberships exp(−(d_ij − ρ_i)⁺/σ_i) that sum to log₂ k, where ρ_i is the smallest non-zero distance to
    a neighbour; the graph is A + Aᵀ − A∘Aᵀ. It equals that of umap-learn for equal neighbours.

    Parameters
    ----------
    n_neighbors : int, default=15
        Number k of neighbours including the point itself, as in umap-learn.
    local_connectivity : float, default=1.0
        Number of nearest neighbours that count as fully connected; fractions interpolate.
    set_op_mix_ratio : float, default=1.0
        Mixture of the fuzzy union (1) with the fuzzy intersection (0).
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
        self._transforms()
        return self.n_neighbors - 1

    def _transforms(self) -> tuple[Transform, ...]:
        return Connectivity(self.local_connectivity), Symmetrize("union", self.set_op_mix_ratio)
