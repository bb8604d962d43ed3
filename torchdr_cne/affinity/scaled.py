"""Neighbours by distances that are relative to the density of the points at both ends."""

import torch
from torch import Tensor

from torchdr_cne.affinity.base import Affinity
from torchdr_cne.affinity.graph import AffinityGraph, symmetric_mean
from torchdr_cne.neighbors import NeighborGraph

_MORE_CANDIDATES = 50
_LOCAL_SCALE = slice(3, 6)
_NEGLIGIBLE = 1e-6
"""Fraction of the mean local scale to which smaller scales, those of duplicates, are raised."""


class ScaledAffinity(Affinity):
    """Unweighted neighbours by scaled distance, as in PaCMAP (Wang, Huang, Rudin & Shaposhnik, 2021).

    The neighbours of a point are, among its k + 50 nearest other points, the k with the smallest d²_ij / (σ_i σ_j),
    where σ_i is the mean distance to the 4th to 6th nearest. The graph is (A + Aᵀ)/2 of this relation A: weights are 1
    if both points list each other, and ½ if one does.

    Parameters
    ----------
    n_neighbors : int, default=10
        Number k of neighbours of each row, not counting the row itself.
    metric, backend
        See `Affinity`.
    """

    n_neighbors: int = 10

    def _n_neighbors_needed(self, n: int) -> int:
        return max(self.n_neighbors, min(self.n_neighbors + _MORE_CANDIDATES, n - 1))

    def from_neighbors(self, neighbors: NeighborGraph) -> AffinityGraph:
        """Return the symmetrised graph of each row's chosen neighbours."""
        indices = neighbors.indices.gather(1, _places_of_nearest(neighbors, self.n_neighbors))
        return symmetric_mean(indices, torch.ones_like(indices, dtype=torch.float32), neighbors.share)

    def directed_weights(self, neighbors: NeighborGraph) -> Tensor:
        """Return 1 for each row's chosen neighbours and 0 for the other candidates, (q, k + 50)."""
        chosen = _places_of_nearest(neighbors, self.n_neighbors)
        return torch.zeros_like(neighbors.indices, dtype=torch.float32).scatter_(1, chosen, 1.0)

    def weights_of_new(self, neighbors: NeighborGraph) -> Tensor:
        """Return 1 for the k nearest rows, as the scales of the rows of the fit are not known here."""
        weights = torch.zeros_like(neighbors.indices, dtype=torch.float32)
        weights[:, : self.n_neighbors] = 1.0
        return weights


def _places_of_nearest(neighbors: NeighborGraph, k: int) -> Tensor:
    """Return where the k candidates with the smallest scaled distances are in each row's list, (q, k) int64.

    σ_i is the same for all of row i, so that d_ij / √σ_j has the order of d²_ij / (σ_i σ_j).
    """
    sigma = neighbors.share.gather(_local_scales(neighbors.distances), "the exchange of local scales")
    sigma = sigma.clamp_min(_NEGLIGIBLE * float(sigma.mean()))
    sigma = torch.where(sigma > 0, sigma, 1.0)
    scaled = neighbors.distances / sigma.sqrt()[neighbors.indices.long()]
    return torch.argsort(scaled, dim=1, stable=True)[:, :k]


def _local_scales(distances_nk: Tensor) -> Tensor:
    """Return each row's mean distance (n,) to the 4th to 6th nearest, or to the last one if there are fewer."""
    first = min(_LOCAL_SCALE.start, distances_nk.shape[1] - 1)
    return distances_nk[:, first : _LOCAL_SCALE.stop].mean(dim=1)
