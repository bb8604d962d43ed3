"""UMAP's fuzzy simplicial set (McInnes, Healy & Melville, 2018)."""

import math

import torch
from torch import Tensor

from torchdr_cne.affinity.base import Affinity
from torchdr_cne.affinity.graph import AffinityGraph, directed_matrix
from torchdr_cne.neighbors import NeighborGraph

_TOLERANCE = 1e-5
_MIN_RELATIVE_SCALE = 1e-3


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
        distances = neighbors.distances.double()
        rho = _nearest_distance(distances, self.local_connectivity)
        sigma = _membership_scale(distances, rho, math.log2(neighbors.n_neighbors + 1))
        excess = (distances - rho.unsqueeze(1)).clamp_min(0)
        memberships = torch.where(excess > 0, torch.exp(-excess / sigma.unsqueeze(1)), 1.0)
        directed = directed_matrix(neighbors.indices, memberships.float())
        transposed = directed.T.tocsr()
        both = directed.multiply(transposed).tocsr()
        mix = self.set_op_mix_ratio
        return AffinityGraph.from_scipy((mix * (directed + transposed - both) + (1 - mix) * both).tocsr())


def _nearest_distance(distances_nk: Tensor, local_connectivity: float) -> Tensor:
    """Distance ρ (n,) to the ``local_connectivity``-th non-zero neighbour, interpolated."""
    n, k = distances_nk.shape
    positive = torch.where(distances_nk > 0, distances_nk, torch.inf).sort(dim=1).values
    n_positive = (distances_nk > 0).sum(dim=1)
    whole = math.floor(local_connectivity)
    fraction = local_connectivity - whole
    padded = torch.cat([torch.zeros(n, 1, dtype=positive.dtype, device=positive.device), positive], dim=1)
    lower = padded[:, min(whole, k)]
    upper = padded[:, min(whole + 1, k)]
    rho = lower + fraction * (upper - lower) if fraction > _TOLERANCE else lower
    largest = distances_nk.amax(dim=1)
    return torch.where(n_positive >= local_connectivity, rho, largest)


def _membership_scale(distances_nk: Tensor, rho: Tensor, target: float) -> Tensor:
    """Bisect for σ (n,) so that each row's memberships sum to ``target``; umap-learn's stopping rule."""
    excess = distances_nk - rho.unsqueeze(1)
    low, high = torch.zeros_like(rho), torch.full_like(rho, torch.inf)
    # The mean counts the point itself, at distance 0.
    row_mean = distances_nk.sum(dim=1) / (distances_nk.shape[1] + 1)
    # From 1, as umap-learn starts, where 64 halvings and doublings reach the solution.
    ordinary = ((row_mean > 1e-6) & (row_mean < 1e6)) | (row_mean == 0)
    sigma = torch.where(ordinary, 1.0, row_mean)
    open_rows = torch.arange(len(rho), device=rho.device)
    excess = excess.clamp_min_(0)
    for _ in range(64):
        guess = sigma[open_rows]
        total = torch.exp(excess / -guess.unsqueeze(1)).sum(dim=1)
        unsolved = (total - target).abs() >= _TOLERANCE
        open_rows, excess = open_rows[unsolved], excess[unsolved]
        guess, too_large = guess[unsolved], total[unsolved] > target
        high[open_rows] = torch.where(too_large, guess, high[open_rows])
        low[open_rows] = torch.where(too_large, low[open_rows], guess)
        upper = high[open_rows]
        sigma[open_rows] = torch.where(torch.isinf(upper), 2 * guess, (low[open_rows] + upper) / 2)
        if not len(open_rows):
            break
    smallest = _MIN_RELATIVE_SCALE * torch.where(rho > 0, row_mean, row_mean.mean())
    return torch.maximum(sigma, smallest).clamp_min(torch.finfo(sigma.dtype).tiny)
